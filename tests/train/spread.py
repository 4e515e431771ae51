"""Trainings in processes of their own: `spread(folder, processes, *trainings)` starts them, this file is what they run.

A training is a dictionary: `name` of its folder, `engine`, and whatever else differs from `runs.raw`. `stop_at` cuts it off at
a step, as if it were killed. All of one call share one start of the interpreter, for imports take longer than they do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import runs
from fusion import pipeline, steps
from fusion.job import Job

STEPS = 20
TRAINING = {
    "max_steps": STEPS, "per_device_train_batch_size": 4,
    "learning_rate": 3e-3, "warmup_steps": 3, "weight_decay": 0.1, "save_strategy": "steps",
    "save_steps": 5, "save_total_limit": None, "report_to": [], "max_grad_norm": 0.5,
}  # fmt: skip


def prepare(folder: Path, **changes) -> None:
    """Extract once; all trainings read the same caches."""
    pipeline.run(runs.config(folder, **changes), until="extract")


def spread(folder: Path, processes: int, *trainings: dict, launcher: bool = True) -> subprocess.CompletedProcess:
    """Run `trainings` one after another in `processes` processes."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "0"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command = [sys.executable, *(torchrun if launcher else []), __file__, str(folder), json.dumps(trainings)]
    done = subprocess.run(command, capture_output=True, text=True)
    blame = [line for line in done.stderr.splitlines() if line.startswith("[rank")] or done.stderr.splitlines()
    assert done.returncode == 0, "\n".join(blame[-60:])
    return done


def log(folder: Path, name: str) -> list[dict]:
    """What a training logged, step by step."""
    return json.loads((folder / name / "log.json").read_text())


def train(folder: Path, name: str, stop_at: int | None = None, **changes) -> None:
    """One training, with both sources, on the examples and caches of `prepare`."""
    import dataclasses

    from transformers import TrainerCallback

    from fusion.cache import Cache
    from fusion.train import Collator, Recipe
    from fusion.train import train as fit

    class KilledError(RuntimeError):
        pass

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == stop_at:
                raise KilledError

    training = TRAINING | changes.pop("training", {})
    config = runs.config(folder, training=training, **changes)
    job = Job(config)
    caches = {source.name: Cache(config.folder / "cache" / source.name) for source in config.sources}
    references = [steps.reference(job, source, cache) for source, cache in caches.items()]
    collator = Collator(job.train, job.encoded("pivot"), references, config.weighting)
    recipe = Recipe(
        config.pivot.ref, job.tokenizers["pivot"], collator, config.objectives, config.training, 0, config.dtype,
        config.head_chunk, config.engine,
        config.adapter,
    )  # fmt: skip
    try:
        fit(dataclasses.replace(recipe), folder / name, [Kill()])
    except KilledError:
        assert stop_at is not None


if __name__ == "__main__":
    for spec in json.loads(sys.argv[2]):
        train(Path(sys.argv[1]), **spec)
        print("trained", spec["name"], flush=True)
