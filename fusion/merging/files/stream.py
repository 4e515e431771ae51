"""Merge model folders: safetensors in, safetensors out, a tile of one tensor at a time, never a whole model in memory."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusion.merging.files import merge_record
from fusion.merging.files.auxiliary_files import complete, configuration
from fusion.merging.files.job import Job, Progress, Vocabulary, checked
from fusion.merging.files.mapped import FLOATS
from fusion.merging.files.output import Output, Spec
from fusion.merging.files.threads import pool
from fusion.merging.methods.base import Method
from fusion.merging.methods.tiles import Flat, Part, Stack, Tile
from fusion.merging.recipes.recipe import Recipe


@dataclass(frozen=True)
class Merged(os.PathLike[str]):
    """The folder with the result, usable as a path, and whether this call made it or found it done."""

    folder: Path
    made: bool

    def __fspath__(self) -> str:
        return str(self.folder)


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

    `out` appears by rename when it is whole and on disk, with a card, the recipe and a `merge.json` that names the XXH3
    of every input file; if it is there already from exactly these inputs, nothing is done. A merge that was killed goes
    on where it was when it is started again. `progress` hears (stage, done, total) for the stage `tensors`.

    Raises ValueError where the inputs do not fit together, hold NaN, or the result overflows `dtype`;
    FileNotFoundError where one is no model folder; FileExistsError where `out` holds something else.
    """
    job = checked(base, models, method, dtype, vocabulary, progress or (lambda stage, done, total: None))
    merge_record.check_free(out)
    with pool(threads) as workers, ThreadPoolExecutor(threads or os.cpu_count()) as readers:
        inputs = merge_record.Inputs.look(job.files, readers)
        if (out / merge_record.NAME).is_file() and merge_record.already_made(out, job.decided() | _described(inputs)):
            return Merged(out, made=False)
        partial = out.parent / f".{out.name}.partial"
        try:
            _write(partial, job, inputs, workers)
            made_from = job.decided() | _described(inputs)
            _complete(partial, job, made_from, out.name)
            partial.replace(out)
        except Exception:  # what cannot go on is taken away; what was interrupted stays, to be gone on with
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return Merged(out, made=True)


def _write(folder: Path, job: Job, inputs: merge_record.Inputs, workers: Executor) -> None:
    specs = [Spec(name, job.letters(name), entry.shape) for name, entry in job.base.entries.items()]
    quick = json.loads(json.dumps(job.decided() | {"inputs": inputs.quick()}))
    with Output.open(folder, specs, quick) as output:
        for done, spec in enumerate(specs, start=1):
            if spec.name not in output.settled:
                (_merge_one if spec.dtype in FLOATS else _copy_equal)(job, spec, output, workers)
                output.finish(spec)
            job.report("tensors", done, len(specs))
    output.seal()


def _merge_one(job: Job, spec: Spec, output: Output, workers: Executor) -> None:
    base = job.base.part(spec.name, _nothing, math.prod(spec.shape))
    models = [model.part(spec.name, base, math.prod(spec.shape)) for model in job.models]
    method, dtype = job.methods[spec.name], FLOATS[spec.dtype]
    stack = Stack(spec.name, spec.shape, base, models, workers, method.exact)

    def write(tile: Tile, merged: Flat) -> None:
        output.write(spec.name, tile.start, merged)

    stack.apply(method.rule(stack), dtype, write)


_nothing = Part("", torch.float32, lambda start, stop: torch.empty(0))


def _copy_equal(job: Job, spec: Spec, output: Output, workers: Executor) -> None:
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


def _complete(folder: Path, job: Job, made_from: dict[str, Any], title: str) -> None:
    recipe = Recipe.of(job.base.folder, [model.folder for model in job.models], job.method, job.dtype, job.vocabulary)
    config = configuration(job.base.config, job.dtype)
    complete(folder, job.base.folder, config, recipe.yaml(), made_from, title)


def _described(inputs: merge_record.Inputs) -> dict[str, Any]:
    first, *rest = inputs.described()
    return {"base": first, "models": rest}
