"""A model folder of safetensors, read entry by entry; and whether several of them can be merged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusion.merging.files.mapped import FLOATS, WIDTHS, Entry, Mapped
from fusion.merging.methods.tiles import Part

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
STRUCTURE = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "vocab_size", "rope_theta", "quantization_config",
)  # fmt: skip
"""Settings of config.json that change what the same weights compute; compared where both files state them."""


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its config.json and what is in its weight files. Opening it reads headers only."""

    folder: Path
    config: dict[str, Any]
    entries: dict[str, Entry]

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Raises FileNotFoundError or ValueError where the folder is no model in safetensors."""
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} is not a model folder: it has no config.json. A model on a hub is downloaded first: "
                "hf download NAME --local-dir FOLDER."
            )
        config = json.loads((folder / "config.json").read_bytes())
        entries: dict[str, Entry] = {}
        for file in _weight_files(folder):
            entries |= Mapped(file).entries()
        _agree_with_index(folder, entries)
        return Checkpoint(folder, config, entries)

    @property
    def files(self) -> list[Path]:
        """What decides the model's answers: config.json and the weights."""
        return [self.folder / "config.json", *sorted({entry.file.path for entry in self.entries.values()})]

    @property
    def layers(self) -> int:
        """How many layers config.json says there are; 1 where it is silent."""
        return self.config.get("num_hidden_layers", self.config.get("text_config", {}).get("num_hidden_layers", 1))

    def find(self, name: str) -> Entry | None:
        """The tensor of that name; for an output head that is not stored because it is tied, the embedding."""
        if name in self.entries or not name.endswith(HEAD) or self.tie_setting is False:
            return self.entries.get(name)
        embeddings = [n for n in self.entries if n.endswith(EMBEDDINGS)]
        return self.entries[embeddings[0]] if len(embeddings) == 1 else None

    def entry(self, name: str) -> Entry:
        """The tensor of that name, which has been checked to be there."""
        entry = self.find(name)
        assert entry is not None, f"{name} was checked to be in {self.folder}"
        return entry

    def part(self, name: str, base: Part, size: int) -> Part:
        """How to read the tensor of that name as `size` entries: rows it lacks are the base's, more are left out."""
        entry = self.entry(name)
        if entry.size >= size:
            return Part(str(self.folder), entry.kind, entry.read, entry.release)

        dtype = torch.promote_types(entry.kind, base.dtype)

        def read(start: int, stop: int) -> torch.Tensor:
            own, rest = (
                entry.read(start, min(stop, entry.size)),
                base.read(max(start, entry.size), max(stop, entry.size)),
            )
            return torch.cat([own.to(dtype), rest.to(dtype)]) if stop > entry.size else own.to(dtype)

        def release(start: int, stop: int) -> None:
            entry.release(min(start, entry.size), min(stop, entry.size))

        return Part(str(self.folder), dtype, read, release)

    @property
    def tie_setting(self) -> bool | None:
        """What config.json says about tied embeddings; None where it is silent, for defaults differ by architecture."""
        return self.config.get("tie_word_embeddings", self.config.get("text_config", {}).get("tie_word_embeddings"))


def check_mergeable(base: Checkpoint, models: Sequence[Checkpoint], *, pad: bool = False) -> None:
    """Raises ValueError with every mismatch of names, shapes, kinds and architecture.

    With `pad` the number of rows of embeddings and heads may differ. Reads no weights, except where a model stores a
    head that the base ties.
    """
    problems = [problem for name, entry in base.entries.items() for problem in _of_kind(base, name, entry)]
    for model in models:
        problems += _architecture(base, model, pad) or _tensors(base, model, pad)
    raise_all(problems)


def raise_all(problems: Sequence[str]) -> None:
    """Raises ValueError with up to twenty of the problems, if there are any."""
    if problems:
        shown = [*problems[:20], *([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])]
        raise ValueError("These checkpoints cannot be merged:\n  " + "\n  ".join(shown))


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() and index.is_file():
        raise ValueError(f"{folder} has both {SINGLE} and {INDEX}; remove the one that is not meant.")
    if single.is_file():
        return [single]
    if index.is_file():
        return [_shard(folder, name) for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    refuse_pickles(folder)
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    hint = f"found {', '.join(others)}" if others else "found no weights"
    raise FileNotFoundError(f"{folder} has neither {SINGLE} nor {INDEX}: {hint}.")


def refuse_pickles(folder: Path) -> None:
    """Raises ValueError where a folder without safetensors has pickled weights."""
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if pickled:
        raise ValueError(
            f"{folder} has pickled weights only ({pickled[0]}), and a pickle can run code. Load the model where you "
            "trust it and save it again with save_pretrained, which writes safetensors."
        )


def _shard(folder: Path, name: str) -> Path:
    file = folder / name
    if Path(name).name != name or not file.is_file():
        raise FileNotFoundError(f"{folder / INDEX} names the shard {name}, which is not in the folder; copy it there.")
    return file


def _agree_with_index(folder: Path, entries: dict[str, Entry]) -> None:
    if not (folder / INDEX).is_file():
        return
    listed = json.loads((folder / INDEX).read_bytes())["weight_map"]
    wrong = [name for name, file in listed.items() if name not in entries or entries[name].file.path.name != file]
    if wrong or len(listed) != len(entries):
        name = (wrong or sorted(entries.keys() - listed.keys()))[0]
        raise ValueError(f"{folder / INDEX} and its shards disagree about {name}; save or copy the model again.")


def _of_kind(base: Checkpoint, name: str, entry: Entry) -> list[str]:
    if entry.dtype in WIDTHS:
        return []
    return [
        f"{base.folder}: {name} is {entry.dtype}; only {', '.join(FLOATS)} and integers can merge; dequantize first"
    ]


def _architecture(base: Checkpoint, model: Checkpoint, pad: bool) -> list[str]:
    ours, theirs = base.config, model.config
    names = [n for n in ("model_type", "architectures") if ours.get(n) != theirs.get(n)]
    names += [
        n for n in STRUCTURE if n in ours and n in theirs and ours[n] != theirs[n] and not (pad and n == "vocab_size")
    ]
    return [f"{model.folder}: {n} is {theirs.get(n)!r}, the base {base.folder} has {ours.get(n)!r}" for n in names]


def _tensors(base: Checkpoint, model: Checkpoint, pad: bool) -> list[str]:
    problems = []
    for name, entry in base.entries.items():
        found = model.find(name)
        if found is None:
            problems.append(f"{model.folder}: {name} is missing; the base {base.folder} has it")
        elif found.shape != entry.shape and not (pad and _differ_in_vocabulary(name, found, entry)):
            hint = "; --vocabulary pad lets rows of tokens differ" if _differ_in_vocabulary(name, found, entry) else ""
            shapes = f"has shape {found.shape}, the base {base.folder} has {entry.shape}"
            problems.append(f"{model.folder}: {name} {shapes}{hint}")
        elif found.dtype != entry.dtype and not (found.floating and entry.floating):
            problems.append(f"{model.folder}: {name} is {found.dtype}, the base {base.folder} has {entry.dtype}")
    extra = [name for name in model.entries if name not in base.entries and not _repeats_embedding(base, model, name)]
    return problems + [f"{model.folder}: {name} is extra; the base {base.folder} lacks it" for name in extra]


def _differ_in_vocabulary(name: str, found: Entry, entry: Entry) -> bool:
    by_token = name.endswith((HEAD, *EMBEDDINGS)) and found.floating and entry.floating
    return by_token and len(entry.shape) == 2 and found.shape[1:] == entry.shape[1:]


def _repeats_embedding(base: Checkpoint, model: Checkpoint, name: str) -> bool:
    """Whether `name` is a head the base ties and the model stores once more, equal to the model's embedding."""
    tied = base.find(name)
    twin = next((n for n, entry in base.entries.items() if entry is tied), None)
    if twin is None or twin not in model.entries or model.entries[twin].shape != model.entries[name].shape:
        return False
    first, second = model.entries[twin], model.entries[name]
    return first.dtype == second.dtype and torch.equal(first.raw(0, first.size), second.raw(0, second.size))
