"""Checkpoints of a training: which is whole, which engine made it, and how it goes on with another number of processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from fusion.core.text_files import read_object
from fusion.runtime import distributed
from fusion.runtime.artifacts import write_json
from fusion.runtime.console import show
from fusion.runtime.file_states import damaged_files, file_states
from fusion.training.engine import Engine

FILES = "files.json"
"""Size and checksum of each file of a checkpoint, written last."""
PLAIN = {"single", "ddp"}  # a whole model in each process: the same checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; the main process sets aside those that are cut off or damaged, and says so.

    Every process calls it.
    """
    with distributed.main_process_first():
        newest_first = _newest_first(folder)
        if distributed.is_main_process():
            for place in newest_first:
                if problem := _problem(place):
                    show([f"{place} is left out: {problem}"])
                    place.rename(place.with_name(f"damaged-{place.name}-{uuid4().hex[:4]}"))
                else:
                    _finish_removals(newest_first)
                    return place  # older ones may be needed one day, and are not read now
        return next((place for place in newest_first if (place / FILES).is_file()), None)


class CheckpointMarks(TrainerCallback):
    """Writes size and checksum of all its files into each checkpoint, when they are on the disk: it is whole from then on.

    Only then the oldest go, so that there are `save_total_limit`. Trainer's own rotation comes too early, goes by the times of
    the folders, and leaves a checkpoint half removed with its mark where it is stopped: save within `without_rotation`.
    """

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        distributed.barrier()  # all processes have written theirs
        if distributed.is_main_process():
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            files = [file for file in checkpoint.rglob("*") if file.is_file() and file.name != FILES]
            write_json(checkpoint / FILES, file_states(checkpoint, files))
        _remove_oldest(args)

    @override
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        _remove_oldest(args)  # a process may have been killed before it did


@contextmanager
def without_rotation(args: TrainingArguments) -> Iterator[None]:
    """Let Trainer remove no checkpoint while the body saves one."""
    limit, args.save_total_limit = args.save_total_limit, None
    try:
        yield
    finally:
        args.save_total_limit = limit


def _remove_oldest(args: TrainingArguments) -> None:
    if args.should_save and (args.save_total_limit or 0) > 0:
        for old in _newest_first(Path(str(args.output_dir)))[args.save_total_limit :]:
            _remove(old)


def _remove(checkpoint: Path) -> None:
    (checkpoint / FILES).unlink(missing_ok=True)  # first: what is half removed must not pass for a damaged one
    shutil.rmtree(checkpoint, ignore_errors=True)


def _finish_removals(newest_first: Sequence[Path]) -> None:
    """Remove what is older than the newest whole checkpoint and has no mark: a process was killed while it removed it."""
    for place in newest_first:
        if place.exists() and not (place / FILES).is_file():
            _remove(place)


def _newest_first(folder: Path) -> list[Path]:
    return sorted((place for place in folder.glob("checkpoint-*") if _step(place) >= 0), key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else -1


def _problem(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None where it is as it was written."""
    if not (checkpoint / FILES).is_file():
        return "it was cut off while it was written"
    try:
        states = read_object(checkpoint / FILES)
    except ValueError:
        return f"its {FILES} is damaged"
    return next(iter(damaged_files(checkpoint, states, contents=True).values()), None)


def write_engine_file(checkpoint: Path, engine: Engine) -> None:
    """Keep beside a checkpoint which engine made it, in how many processes."""
    write_json(checkpoint / "engine.json", {"engine": engine.name, "processes": distributed.world_size()})


def read_engine_file(checkpoint: Path) -> dict[str, Any]:
    """What `write_engine_file` wrote."""
    return read_object(checkpoint / "engine.json")


def make_universal(checkpoint: Path, engine: Engine) -> bool:
    """Convert the checkpoint to DeepSpeed's universal form where the number of processes changed; whether to load that form.

    Raises ValueError where another engine made the checkpoint.
    """
    engine_file = read_engine_file(checkpoint)
    if engine_file["engine"] != engine.name and not {engine_file["engine"], engine.name} <= PLAIN:
        raise ValueError(
            f"{checkpoint} was made with engine.kind={engine_file['engine']}, this run has {engine.name}. Set engine.kind to "
            f"{engine_file['engine']} to go on, or delete {checkpoint} to train again from the last step before it."
        )
    if not engine.stage or engine_file["processes"] == distributed.world_size():
        return False
    with distributed.main_process_first():
        if distributed.is_main_process() and not (checkpoint / "latest_universal").exists():
            _convert(checkpoint)
    return True


def _convert(checkpoint: Path) -> None:
    source = checkpoint / (checkpoint / "latest").read_text().strip()
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(source), "--output_folder", f"{source}_universal"]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(
            f"{checkpoint} cannot be made to fit another number of processes: {done.stderr.strip().splitlines()[-1]} "
            f"Go on with {read_engine_file(checkpoint)['processes']} processes, or see what is wrong: {' '.join(command)}"
        )
