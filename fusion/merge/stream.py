"""Merge model folders: safetensors in, safetensors out, a tile of one tensor at a time, never a whole model in memory."""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fusion.merge import record
from fusion.merge.adapter import Adapted
from fusion.merge.card import card
from fusion.merge.checkpoint import Checkpoint, check_mergeable, raise_all
from fusion.merge.mapped import FLOATS
from fusion.merge.method import Method
from fusion.merge.output import Output, Spec
from fusion.merge.recipe import Recipe
from fusion.merge.stack import Flat, Part, Stack, Tile, finite
from fusion.merge.tokens import disagreements

LETTERS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
COPIED = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.*", "additional_chat_templates/*",
)  # fmt: skip
"""What the result takes from the base besides config.json and weights."""

Progress = Callable[[str, int, int], None]
Vocabulary = Literal["refuse", "pad"]


@dataclass(frozen=True)
class Merged(os.PathLike[str]):
    """The folder with the result, usable as a path, and whether this call made it or found it done."""

    folder: Path
    made: bool

    def __fspath__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class _Job:
    """What is to be done, checked."""

    base: Checkpoint
    models: list[Checkpoint]
    method: Method
    methods: dict[str, Method]
    """With the numbers of each floating tensor."""
    dtype: str | None
    vocabulary: Vocabulary
    report: Progress

    def decided(self) -> dict[str, Any]:
        """What decides the result besides the inputs."""
        settings = {"method": self.method.model_dump(), "dtype": self.dtype, "vocabulary": self.vocabulary}
        return {"version": record.VERSION, **settings}


def merge(
    base: Path | None,
    models: Sequence[Path],
    method: Method,
    out: Path,
    *,
    dtype: str | None = None,
    vocabulary: Vocabulary = "refuse",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Merges `models` into `base` with `method` and writes the model folder `out`.

    A model is a folder with safetensors, or with a LoRA adapter of the base. Floating tensors keep the dtype the base
    has, or get `dtype` (float32, bfloat16, float16); integers and booleans must be equal in all folders. Everything else
    (configuration, tokenizer, chat template) is the base's; without a base, for methods that need none, the first
    model's. Tokenizers must agree; with `vocabulary: pad` a model may have more or fewer tokens: rows it lacks count as
    the base's, rows the base lacks are left out. `threads` are by default as many as cores.

    `out` appears by rename when it is whole and on disk, with a card, the recipe and a `merge.json` that names the sha256
    of every input file; if it is there already from exactly these inputs, nothing is done. A merge that was killed goes
    on where it was when it is started again. `progress` hears (stage, done, total) for the stage `tensors`.

    Raises ValueError where the inputs do not fit together, hold NaN, or the result overflows `dtype`;
    FileNotFoundError where one is no model folder; FileExistsError where `out` holds something else.
    """
    job = _checked(base, models, method, dtype, vocabulary, progress or (lambda stage, done, total: None))
    record.check_free(out)
    with _pool(threads) as pool, ThreadPoolExecutor(threads or os.cpu_count()) as readers:
        inputs = record.Inputs.look(_files(job), readers)
        if (out / record.NAME).is_file() and record.already_made(out, job.decided() | _described(inputs)):
            return Merged(out, made=False)
        partial = out.parent / f".{out.name}.partial"
        try:
            _write(partial, job, inputs, pool)
            made_from = job.decided() | _described(inputs)
            _complete(partial, job, made_from, out.name)
            partial.replace(out)
        except Exception:  # what cannot go on is taken away; what was interrupted stays, to be gone on with
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return Merged(out, made=True)


def _checked(
    base: Path | None,
    models: Sequence[Path],
    method: Method,
    dtype: str | None,
    vocabulary: Vocabulary,
    report: Progress,
) -> _Job:
    if dtype is not None and dtype not in LETTERS:
        raise ValueError(f"dtype must be one of {', '.join(LETTERS)}, or left out to keep the base's; got {dtype!r}.")
    method.check(len(models))
    if base is None and (method.needs_base or getattr(method, "origin", "zero") == "base"):
        raise ValueError(f"{method.name} compares the models with the model they grew from; name it with --base.")
    source = Checkpoint.open(base or models[0])
    others = [Adapted.of(source, model) if Adapted.folds(model) else Checkpoint.open(model) for model in models]
    pad = vocabulary == "pad"
    raise_all([line for model in models for line in disagreements(source.folder, model, pad=pad)])
    check_mergeable(source, others, pad=pad)
    methods = {name: method.at(name, source.layers) for name, entry in source.entries.items() if entry.floating}
    return _Job(source, others, method, methods, dtype, vocabulary, report)


@contextmanager
def _pool(threads: int | None) -> Iterator[Executor | None]:
    """Threads that leave torch's own alone: each works on tiles of its own, with no threads inside."""
    count, before = threads or len(os.sched_getaffinity(0)), torch.get_num_threads()
    _keep_freed_memory()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _keep_freed_memory() -> None:
    """Ask the C library to keep the memory of a tile for the next one; giving it back and forth is half of a merge."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for parameter, value in (
            (-3, 1 << 25),
            (-1, 1 << 25),
            (-2, 1 << 24),
        ):  # mmap threshold, trim threshold, top pad
            library.mallopt(parameter, value)


def _write(folder: Path, job: _Job, inputs: record.Inputs, pool: Executor | None) -> None:
    specs = [Spec(name, _letters(job, name), entry.shape) for name, entry in job.base.entries.items()]
    quick = json.loads(json.dumps(job.decided() | {"inputs": inputs.quick()}))
    with Output.open(folder, specs, quick) as output:
        for done, spec in enumerate(specs, start=1):
            if spec.name not in output.settled:
                (_merge_one if spec.dtype in FLOATS else _copy_equal)(job, spec, output, pool)
                output.finish(spec)
            job.report("tensors", done, len(specs))
    output.seal()


def _merge_one(job: _Job, spec: Spec, output: Output, pool: Executor | None) -> None:
    base = job.base.part(spec.name, _nothing, math.prod(spec.shape))
    models = [model.part(spec.name, base, math.prod(spec.shape)) for model in job.models]
    method, dtype = job.methods[spec.name], FLOATS[spec.dtype]
    stack = Stack(spec.name, spec.shape, base, models, pool, method.exact)

    def write(tile: Tile, values: Flat) -> None:
        merged = values.to(dtype)
        if not finite(merged):
            raise ValueError(
                f"{spec.name} overflows {dtype} after merging; choose dtype float32 or bfloat16, or smaller weights."
            )
        output.write(spec.name, tile.start, merged)

    stack.apply(method.rule(stack), write)


_nothing = Part("", torch.float32, lambda start, stop: torch.empty(0))


def _copy_equal(job: _Job, spec: Spec, output: Output, pool: Executor | None) -> None:
    entry = job.base.entries[spec.name]
    values = entry.raw(0, entry.size)
    for model in job.models:
        other = model.entry(spec.name)
        if not torch.equal(values, other.raw(0, other.size)):
            raise ValueError(
                f"{spec.name} in {model.folder} differs from the base {job.base.folder}: {spec.dtype} values, which cannot "
                "be averaged and have to be equal in all; give models trained from this base."
            )
    output.write(spec.name, 0, values)


def _letters(job: _Job, name: str) -> str:
    entry = job.base.entries[name]
    return LETTERS[job.dtype] if job.dtype and entry.floating else entry.dtype


def _complete(folder: Path, job: _Job, made_from: dict[str, Any], title: str) -> None:
    for file in _copied(job.base.folder):
        target = folder / file.relative_to(job.base.folder)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    recipe = Recipe.of(job.base.folder, [model.folder for model in job.models], job.method, job.dtype, job.vocabulary)
    (folder / "recipe.yaml").write_text(recipe.yaml())
    (folder / "README.md").write_text(card(title, made_from, recipe.yaml()))
    (folder / "config.json").write_text(json.dumps(_config(job.base, job.dtype), indent=2) + "\n")
    record.finish(folder, made_from)


def _config(base: Checkpoint, dtype: str | None) -> dict[str, Any]:
    """The base's configuration, with the dtype of the result where another was chosen."""
    if dtype is None:
        return base.config
    stated = [name for name in ("dtype", "torch_dtype") if name in base.config] or ["dtype"]
    return base.config | dict.fromkeys(stated, dtype)


def _copied(folder: Path) -> list[Path]:
    return sorted(file for pattern in COPIED for file in folder.glob(pattern) if file.is_file())


def _files(job: _Job) -> list[tuple[Path, list[Path]]]:
    base = (job.base.folder, [*job.base.files, *_copied(job.base.folder)])
    return [base, *((model.folder, model.files) for model in job.models)]


def _described(inputs: record.Inputs) -> dict[str, Any]:
    first, *rest = inputs.described()
    return {"base": first, "models": rest}
