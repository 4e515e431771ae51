"""Merge model folders: safetensors in, safetensors out, a tile of one tensor at a time, never a whole model in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusion.core.markdown import without_home
from fusion.merging.files import merge_record
from fusion.merging.files.auxiliary_files import write_auxiliary_files
from fusion.merging.files.card import model_card
from fusion.merging.files.checkpoint_writer import CheckpointWriter, TensorSpec, can_resume, synced_tensors
from fusion.merging.files.lone_tensors import is_buffer
from fusion.merging.files.merge_job import MergeJob, MergeProgress, VocabularyPolicy, prepare_merge
from fusion.merging.files.mergeable import result_config
from fusion.merging.files.output_folder import OutputFolder
from fusion.merging.files.safetensors_file import FLOAT_DTYPES
from fusion.merging.methods.base import MergeMethod
from fusion.merging.methods.threads import background_executor, tile_executor
from fusion.merging.methods.tiles import Flat, TensorReader, TensorStack, Tile
from fusion.merging.recipes.merge_recipe import MergeRecipe
from fusion.models.auxiliary_files import (
    GENERATION_CONFIG,
    add_ends,
    common_ends,
    config_with_dtype,
    copy_auxiliary_files,
    find_auxiliary_files,
    with_ends,
)
from fusion.models.notices import mention_once
from fusion.runtime.disk_space import check_space, explaining_full_disk

MERGED_MODEL = "the merged model"


@dataclass(frozen=True)
class MergeResult(os.PathLike[str]):
    """The folder of a merged model, usable as a path."""

    folder: Path
    created: bool
    """Whether this call merged it; if not, it was there already from exactly these inputs."""

    def __fspath__(self) -> str:
        return str(self.folder)


def merge(
    base: Path | None,
    models: Sequence[Path],
    method: MergeMethod,
    out: Path,
    *,
    dtype: str | None = None,
    vocabulary: VocabularyPolicy = "refuse",
    tokenizer_source: Path | None = None,
    allow_different: Sequence[str] = (),
    threads: int | None = None,
    progress: MergeProgress | None = None,
    extra_files: Mapping[str, str] | None = None,
) -> MergeResult:
    """Merge `models` into `base` with `method` and write the model folder `out`.

    A model is a folder with safetensors, with a LoRA adapter of the base, or MODEL+ADAPTER for one of another model.
    Floating tensors keep the dtype the base has, or get `dtype` (float32, bfloat16, float16); integers and booleans must
    be equal in all folders. Everything else
    (configuration, tokenizer, chat template) is the base's; without a base, for methods that need none, the first
    model's. `tokenizer_source`, one of the models, gives tokenizer, chat template and generation settings instead.
    Tokenizers must agree; with `vocabulary="pad"` a model may have more or fewer tokens: rows it lacks count as the base's;
    rows the base lacks are left out, or, of `tokenizer_source`, added. What config.json says of the function of the weights
    (rope, activation, heads ...) must agree, unless `allow_different` names the keys: then the base's hold. `threads` are by
    default as many as cores.

    `out` appears when it is whole and on disk, with a card, the recipe, `extra_files` (texts by name) and a `merge.json`
    that names the XXH3 of every file read and written; if it is there already from exactly these inputs, nothing is done.
    A merge that was killed resumes where it was when it is started again. `progress` is called with (stage, done, total)
    for the stage `tensors`.

    Raises ValueError where the inputs do not fit together, hold NaN, or the result overflows `dtype`, or where `out` is,
    holds or lies in one of them; FileNotFoundError where one is no model folder; FileExistsError where `out` holds
    something else; BlockingIOError where another process writes there; OSError where the disk is full.
    """
    output = OutputFolder.find(out, [*([base] if base else []), *models])
    options = {"vocabulary": vocabulary, "tokenizer_source": tokenizer_source, "allow_different": allow_different}
    with output.lock(), tile_executor(threads) as executor, background_executor(threads) as hashing:
        job = prepare_merge(base, models, method, dtype=dtype, **options)
        for note in job.notes:
            mention_once(note)
        inputs = merge_record.HashedInputs.start(job.input_files, hashing)
        if output.has_result and merge_record.is_already_merged(output.folder, _record(job, inputs)):
            return MergeResult(out, created=False)
        if not (output.is_written and output.is_unpublished(_record(job, inputs))):
            with _cleaning_up(output, job):
                _write_weights(output, job, inputs, executor=executor, progress=progress)
                _write_auxiliary_files(output, job, _record(job, inputs), extra_files or {})
        output.publish()
    return MergeResult(out, created=True)


@contextmanager
def _cleaning_up(output: OutputFolder, job: MergeJob) -> Iterator[None]:
    """Leave nothing behind where the same error would come again; what a stopped merge or a full disk left is gone on with."""
    way_out = "Free that, and run the same command again: what is on the disk is kept; or choose another place."
    try:
        with explaining_full_disk(output.partial, _result_bytes(job), MERGED_MODEL, way_out):
            yield
    except ValueError:
        output.discard_partial()
        raise
    except OSError:
        if not synced_tensors(output.partial):
            output.discard_partial()
        raise


def _write_weights(
    output: OutputFolder,
    job: MergeJob,
    inputs: merge_record.HashedInputs,
    *,
    executor: Executor,
    progress: MergeProgress | None,
) -> None:
    specs = _result_specs(job)
    # sizes and times instead of hashes, which are not known yet
    merge_key = json.loads(json.dumps(job.settings() | {"inputs": inputs.file_states()}))
    if not can_resume(output.partial, specs, merge_key):
        output.discard_partial()
    check_space(output.partial, _result_bytes(job), MERGED_MODEL)
    with CheckpointWriter.open(output.partial, specs, merge_key) as writer:
        for done, spec in enumerate(specs, start=1):
            if spec.name not in writer.synced:
                if spec.name in job.methods:
                    _merge_tensor(job, spec, writer, executor=executor)
                else:
                    _copy_equal(job, spec, writer)
                writer.mark_written(spec)
            if progress is not None:
                progress("tensors", done, len(specs))
    writer.write_index()


def _result_specs(job: MergeJob) -> list[TensorSpec]:
    return [TensorSpec(name, job.result_dtype(name), entry.shape) for name, entry in job.base.entries.items()]


def _result_bytes(job: MergeJob) -> int:
    """Bytes of the result: its weights, and what is copied."""
    copied = find_auxiliary_files(job.base.folder)
    return sum(spec.num_bytes for spec in _result_specs(job)) + sum(file.stat().st_size for file in copied)


def _merge_tensor(job: MergeJob, spec: TensorSpec, writer: CheckpointWriter, *, executor: Executor) -> None:
    size, method = math.prod(spec.shape), job.methods[spec.name]
    base = job.base.reader(spec.name, _NO_READER, size)
    models = [model.reader(spec.name, base, size) for model in job.models]
    stack = TensorStack(spec.name, spec.shape, base, models, executor=executor, always_float64=method.always_float64)

    def write(tile: Tile, merged: Flat) -> None:
        writer.write(spec.name, tile.start, merged)

    stack.apply(method.rule(stack), FLOAT_DTYPES[spec.dtype], write)


_NO_READER = TensorReader("", torch.float32, lambda start, stop: torch.empty(0))
"""The base lacks no rows of itself."""


def _copy_equal(job: MergeJob, spec: TensorSpec, writer: CheckpointWriter) -> None:
    """Copy what is not merged: buffers, what a model lacks, integers. Raises ValueError where a model's integers differ."""
    entry = job.base.entries[spec.name]
    values = entry.read_bytes(0, entry.size)
    for model in [] if is_buffer(spec.name, entry) or spec.name in job.kept else job.models:
        other = model.entry(spec.name)
        if not torch.equal(values, other.read_bytes(0, other.size)):
            raise ValueError(
                f"{spec.name} in {model.folder} differs from the base {job.base.folder}: {spec.dtype} values, which cannot "
                "be averaged and have to be equal in all; give models trained from this base, or, of weights of few bits, the "
                "dequantized models."
            )
    writer.write(spec.name, 0, values)


def _write_auxiliary_files(
    output: OutputFolder, job: MergeJob, record: dict[str, Any], extra_files: Mapping[str, str]
) -> None:
    folder, title = output.partial, output.folder.name
    models = [model.reference for model in job.models]
    recipe = MergeRecipe.from_merge(job.base.folder, models, job.method, job.options).to_yaml()
    config = config_with_dtype(result_config(job.base), job.dtype)
    copy_auxiliary_files(job.base.folder, folder)
    if job.tokenizer is None:
        add_ends(folder, ends := common_ends([model.tokenizer_folder for model in job.models]))
        if not (folder / GENERATION_CONFIG).is_file():  # then generation ends where config.json says
            config = with_ends(config, ends)
    else:
        job.tokenizer.write(folder)
        config = job.tokenizer.set_ids(config)
    source = "base" if job.tokenizer is None else f"model {job.tokenizer.position + 1}"
    card = model_card(title, record, recipe, tokenizer_from=source, notes=job.notes)
    write_auxiliary_files(folder, config, recipe=recipe, card=card)
    for name, text in extra_files.items():
        (folder / name).write_text(text)
    merge_record.write(folder, record)  # after all else, whose sizes and hashes it holds


def _record(job: MergeJob, inputs: merge_record.HashedInputs) -> dict[str, Any]:
    """Settings and hashes of the inputs, for which this waits, as they go into `merge.json`."""
    base, *models = [model | {"folder": without_home(model["folder"])} for model in inputs.by_folder()]
    return job.settings() | {"base_model": base, "models": models}
