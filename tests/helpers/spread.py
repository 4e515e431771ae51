"""Trainings in processes of their own: `spread(folder, processes, *trainings)` starts them, this file is what they run.

A training is a dictionary: `place`, the name of its folder, and what differs from `runs.raw`. `stop_at` cuts it off at a step,
as if it were killed; `copy_to` then keeps what it left. All of one call share one start of Python, for imports take longest.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fusion import pipeline
from fusion.runtime import distributed
from fusion.stages import train as train_stage
from fusion.stages.context import RunContext
from tests.helpers import runs

STEPS = 10
TRAINING = {
    "max_steps": STEPS, "per_device_train_batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 3, "weight_decay": 0.1,
    "save_strategy": "steps", "save_steps": 3, "save_total_limit": None, "report_to": [], "max_grad_norm": 0.5,
}  # fmt: skip
HALF = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}  # the same step in two processes


def prepare(folder: Path, **changes) -> None:
    """Extract once; all trainings read the same caches."""
    pipeline.run(runs.config(folder, **changes), until="extract")


def launch(processes: int, *command: str) -> subprocess.CompletedProcess:
    """Run a Python command under torchrun, or alone where `processes` is 0."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    path = os.pathsep.join([str(Path(runs.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *(torchrun if processes else []), *command],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def spread(folder: Path, processes: int, *trainings: dict) -> None:
    """Run `trainings` one after another in so many processes."""
    done = launch(processes, __file__, str(folder), json.dumps(trainings))
    blame = [line for line in done.stderr.splitlines() if line.startswith("[rank")] or done.stderr.splitlines()
    assert done.returncode == 0, "\n".join(blame[-60:])


def log(folder: Path, place: str) -> list[dict]:
    """What a training logged, step by step."""
    return json.loads((folder / place / "log.json").read_text())


def train(folder: Path, place: str, stop_at: int | None = None, copy_to: str | None = None, **changes) -> None:
    """One training, with both sources, on the examples and caches of `prepare`."""
    from transformers import TrainerCallback

    from fusion.cache import Cache
    from fusion.training import TrainingCollator
    from fusion.training.fit import TrainingSpec
    from fusion.training.fit import train as fit
    from fusion.training.validation import ValidationTexts

    class KilledError(RuntimeError):
        pass

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == stop_at:
                raise KilledError

    config = runs.config(folder, training=TRAINING | changes.pop("training", {}), **changes)
    context = RunContext(config)
    caches = {source.name: Cache(config.folder / "cache" / source.name) for source in config.sources}
    sources = [train_stage.training_source(context, source, cache) for source, cache in caches.items()]
    collator = TrainingCollator(context.train_examples, context.encoded("pivot"), sources, config.weighting)
    how = (context.training | context.validation_arguments, config.seed, config.dtype)
    spread_over = {
        "logits_chunk": config.logits_chunk,
        "engine": config.engine,
        "validation": ValidationTexts(context.validation_examples, context.validation_texts)
        if config.data.validation
        else None,
        "adapter": config.adapter,
        "quantizer": config.quantization_aware_training,
    }
    try:
        fit(
            TrainingSpec(
                config.pivot.ref, context.tokenizers["pivot"], collator, config.objectives, *how, **spread_over
            ),
            folder / place,
            [Kill()],
        )
    except KilledError:
        assert stop_at is not None
    if copy_to and distributed.is_main_process():
        shutil.copytree(folder / place, folder / copy_to)
    distributed.barrier()


if __name__ == "__main__":
    for training in json.loads(sys.argv[2]):
        train(Path(sys.argv[1]), **training)
        gc.freeze()  # trainers collect garbage, and need not look through all of torch and DeepSpeed each time
