"""Checkpoints of a training: which is whole, which engine made it, and how it goes on with another number of processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object
from fusion.runtime import distributed
from fusion.runtime.artifacts import write_json
from fusion.training.engine import Engine

PLAIN = {"single", "ddp"}  # a whole model in each process: the same checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; trainer_state.json is written last, so one without it was cut off."""
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda place: int(place.name.split("-")[1])) if whole else None


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
