"""Merge model folders tensor by tensor: safetensors in, safetensors out, never a whole model in memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fusion.merge import record
from fusion.merge.checkpoint import FLOATS, INDEX, SINGLE, Checkpoint, Entry, check_mergeable
from fusion.merge.methods import Method

SHARD_BYTES = 512 << 20
"""Largest shard written, and so about what the writer holds in memory; a larger single tensor gets its own."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
COPIED = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.*", "additional_chat_templates/*",
)  # fmt: skip
"""What the result takes from the base besides config.json and weights."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Merged(os.PathLike[str]):
    """The folder with the result, usable as a path, and whether this call made it or found it done."""

    folder: Path
    made: bool

    def __fspath__(self) -> str:
        return str(self.folder)


def merge(
    base: Path,
    models: Sequence[Path],
    method: Method,
    out: Path,
    *,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Merges `models` into `base` with `method` and writes the model folder `out`.

    Floating tensors keep the dtype the base has, or get `dtype` (float32, bfloat16, float16); integers and booleans
    must be equal in all folders. Everything else (configuration, tokenizer, chat template) is the base's. `out` appears
    by rename when it is whole, with a `merge.json` that names the method and the sha256 of every input file; if it is
    there already from exactly these inputs, nothing is done. `progress` hears (stage, done, total) for the stages
    `checksums` (files) and `tensors`.

    Raises ValueError where the inputs do not fit together, hold NaN, or the result overflows `dtype`;
    FileNotFoundError where one is no model folder; FileExistsError where `out` holds something else.
    """
    report = progress or (lambda stage, done, total: None)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, or left out to keep the base's; got {dtype!r}.")
    method.check(len(models))
    source, others = Checkpoint.open(base), [Checkpoint.open(model) for model in models]
    check_mergeable(source, others)
    record.check_free(out)
    made_from = _made_from(source, others, method, dtype, report)
    if record.already_made(out, made_from):
        return Merged(out, made=False)
    partial = out.parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # what a killed merge left behind
    partial.mkdir(parents=True)
    try:
        _write(partial, source, others, method, dtype, report)
        record.finish(partial, made_from)
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Merged(out, made=True)


def _write(
    folder: Path, base: Checkpoint, models: Sequence[Checkpoint], method: Method, dtype: str | None, report: Progress
) -> None:
    shards = list(_shards(base, dtype))
    done, places = 0, {}
    for number, names in enumerate(shards, start=1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for name in names:
            tensors[name] = _merged(name, base, models, method, dtype)
            done += 1
            report("tensors", done, len(base.entries))
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(_bytes(entry, dtype) for entry in base.entries.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    (folder / "config.json").write_text(json.dumps(_config(base, dtype), indent=2) + "\n")
    for file in _copied(base.folder):
        target = folder / file.relative_to(base.folder)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)


def _merged(name: str, base: Checkpoint, models: Sequence[Checkpoint], method: Method, dtype: str | None) -> Tensor:
    origin, others = base.read(name), [model.read(name) for model in models]
    if not base.entries[name].floating:
        for model, other in zip(models, others, strict=True):
            if not torch.equal(origin, other):
                raise ValueError(
                    f"{name} in {model.folder} differs from the base {base.folder}: {base.entries[name].dtype} "
                    "values, which cannot be averaged and have to be equal in all; give models trained from this base."
                )
        return origin.clone()
    result = method(origin, others).to(_dtype(base.entries[name], dtype))
    if not torch.isfinite(result).all():
        raise ValueError(
            f"{name} overflows {result.dtype} after merging; choose dtype float32 or bfloat16, or smaller weights."
        )
    return result


def _shards(base: Checkpoint, dtype: str | None) -> Iterator[list[str]]:
    """Names of the tensors of each file, in the base's order."""
    shard, size = [], 0
    for name, entry in base.entries.items():
        if shard and size + _bytes(entry, dtype) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += _bytes(entry, dtype)
    yield shard


def _dtype(entry: Entry, dtype: str | None) -> torch.dtype:
    return FLOATS[entry.dtype] if dtype is None else DTYPES[dtype]


def _bytes(entry: Entry, dtype: str | None) -> int:
    widths = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}
    return entry.size * (_dtype(entry, dtype).itemsize if entry.floating else widths[entry.dtype])


def _config(base: Checkpoint, dtype: str | None) -> dict[str, Any]:
    """The base's configuration, with the dtype of the result where another was chosen."""
    if dtype is None:
        return base.config
    stated = [name for name in ("dtype", "torch_dtype") if name in base.config] or ["dtype"]
    return base.config | dict.fromkeys(stated, dtype)


def _copied(folder: Path) -> list[Path]:
    return sorted(file for pattern in COPIED for file in folder.glob(pattern) if file.is_file())


def _made_from(
    base: Checkpoint, models: Sequence[Checkpoint], method: Method, dtype: str | None, report: Progress
) -> dict[str, Any]:
    """Everything that decides the result, files by their sha256."""
    files = [(base.folder, [*base.files, *_copied(base.folder)]), *((model.folder, model.files) for model in models)]
    first, *rest = record.inputs(files, lambda done, total: report("checksums", done, total))
    return {"version": record.VERSION, "method": method.model_dump(), "dtype": dtype, "base": first, "models": rest}
