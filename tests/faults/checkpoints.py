"""Spoiled models: GGUF files, and folders whose configuration, tokenizer or weights are not what they were."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.faults.mutations import spoil_bytes, spoil_text, spoil_tree
from tests.faults.runner import Mutant
from tests.helpers import gguf_file, runs, tiny

FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"]


def gguf_files(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants for `fusion extract` with a source from GGUF; most in the header."""
    gguf_file.write(folder / "whole.gguf")
    content, number = (folder / "whole.gguf").read_bytes(), 0
    header = content.index(b"blk.0.attn_q.weight") + 1000
    while True:
        number += 1
        spoiled, what = spoil_bytes(content, rng, header)
        yield _gguf_mutant(folder, number, spoiled, what, content)


def _gguf_mutant(folder: Path, number: int, spoiled: bytes, what: str, whole: bytes) -> Mutant:
    file, config = folder / "source.gguf", _extraction(folder, f"gguf-{number}", folder / "source.gguf")

    def prepare(content: bytes = spoiled) -> list[str]:
        shutil.rmtree(folder / "extracted", ignore_errors=True)
        file.write_bytes(content)
        return config()

    return Mutant("GGUF", what, prepare, (str(file),), ("GGUF", lambda: prepare(whole)), lambda: _rows(folder))


def model_folders(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants for `fusion extract` with a source of which one file is spoiled."""
    tiny.folder("llama", folder / "whole", seed=7)  # other files than the pivot's
    number = 0
    while True:
        number += 1
        name = rng.choice(FILES)
        content, what = _spoil_file(folder / "whole" / name, rng)
        yield _folder_mutant(folder, number, name, content, what)


def _folder_mutant(folder: Path, number: int, name: str, spoiled: bytes | None, what: str) -> Mutant:
    source, config = folder / "source", _extraction(folder, f"folder-{number}", folder / "source")

    def prepare(spoil: bool = True) -> list[str]:
        shutil.rmtree(folder / "extracted", ignore_errors=True)
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(folder / "whole", source)
        if spoil:
            (source / name).unlink() if spoiled is None else (source / name).write_bytes(spoiled)
        return config()

    original = "folder", lambda: prepare(spoil=False)
    return Mutant("model folder", f"{name}: {what}", prepare, (str(source),), original, lambda: _rows(folder))


def _spoil_file(file: Path, rng: random.Random) -> tuple[bytes | None, str]:
    """New content of a file of a model folder; None deletes it."""
    if rng.random() < 0.03:
        return None, "deleted"
    if file.suffix == ".safetensors":
        return _spoil_weights(file, rng)
    if rng.random() < 0.2:
        content, line, what = spoil_text(file.read_text(), rng)
        return content, f"line {line}: {what}"
    tree, place, what = spoil_tree(_without_most_tokens(json.loads(file.read_text()), rng), rng)
    return json.dumps(tree).encode(), f"{'.'.join(map(str, place))}: {what}"


def _without_most_tokens(tree: Any, rng: random.Random) -> Any:
    """The same; a vocabulary has so many places that nothing else would ever be spoiled."""
    if rng.random() < 0.8 and "model" in tree:
        return tree | {"model": {key: value for key, value in tree["model"].items() if rng.random() < 0.9}}
    return tree


def _spoil_weights(file: Path, rng: random.Random) -> tuple[bytes, str]:
    if rng.random() < 0.5:
        return spoil_bytes(file.read_bytes(), rng, 3000)
    tensors = load_file(file)
    name = rng.choice(list(tensors))
    what = rng.choice(["absent", "another shape", "NaN", "integers", "another name", "empty"])
    value = tensors.pop(name)
    changed = {
        "another shape": value[..., :-1].clone(),
        "NaN": torch.full_like(value, float("nan")),
        "integers": value.to(torch.int32),
        "another name": value,
        "empty": value[:0].clone(),
    }
    if what in changed:
        tensors[f"x.{name}" if what == "another name" else name] = changed[what]
    aside = file.with_name("aside.safetensors")
    save_file(tensors, aside, metadata={"format": "pt"})
    content = aside.read_bytes()
    aside.unlink()
    return content, f"{name}: {what}"


def _extraction(folder: Path, name: str, source: Path) -> Any:
    """What writes a configuration that reads four examples with this source, and returns the command."""
    raw = runs.raw(folder)
    for one in [*raw["data"]["train"], *raw["data"]["heldout"]]:
        one["limit"] = 2
    changes = {"name": name, "runs": str(folder / "extracted"), "sources": [{"name": "spoiled", "path": str(source)}]}

    def write() -> list[str]:
        (folder / "models.yaml").write_text(yaml.safe_dump(raw | changes))
        return ["extract", str(folder / "models.yaml")]

    return write


def _rows(folder: Path) -> list[bytes]:
    """The shards of the cache that a source gave, without what differs between equal ones."""
    shards = sorted((folder / "extracted").glob("*/cache/spoiled/shard-*.safetensors"))
    return [tensor.contiguous().numpy().tobytes() for shard in shards for _, tensor in sorted(load_file(shard).items())]
