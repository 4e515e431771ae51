"""What the trainings of a run take: one process by engine, and each training as a stage."""

from __future__ import annotations

import math
from dataclasses import replace

from fusion.config import Config
from fusion.config.conflicts import WHOLE
from fusion.plan import memory
from fusion.plan.facts import Architecture
from fusion.plan.memory import Engine, Memory, Precision
from fusion.plan.planner import BYTES, Estimate, Planner
from fusion.plan.work import training
from fusion.training import BASELINE, auxiliary_modules


def engine_of(config: Config) -> Engine:
    """The engine that the run would use on so many GPUs."""
    kind = config.engine.kind
    plain: memory.Kind = "single" if config.plan.gpus == 1 else "ddp"
    return Engine(plain if kind == "auto" else kind, config.engine.offload)


def possible(config: Config) -> list[Engine]:
    """The configured one; and with one GPU the plain one and those that offload, with several all but the plain one;
    of those, where terms own modules, the ones that can train them."""
    one, chosen = config.plan.gpus == 1, engine_of(config)
    whole = any(objective.requirements.trains_module for objective in config.objectives)
    return [
        e
        for e in memory.ENGINES
        if e == chosen
        or (
            (e.kind == "single" or e.offload != "none" if one else e.kind != "single")
            and (e.kind in WHOLE or not whole)
        )
    ]


def _precision(config: Config) -> Precision:
    width = BYTES[config.dtype]
    mixed = bool(config.training.get("bf16") or config.training.get("fp16"))
    return Precision(width, 2 if mixed else width, mixed)


def process(planner: Planner, engine: Engine, checkpointed: bool) -> Memory:
    """One process of a training of the pivot."""
    config, size = planner.config, planner.sizes["pivot"]
    (batch, _), length = planner.micro_batch(), planner.counts("pivot").longest
    precision = _precision(config)
    kept = memory.activations(size, batch * length, length, precision, batch > 1 and not config.packing, checkpointed)
    states = memory.states(size, engine, precision, config.plan.gpus)
    trained, frozen = _module_parameters(planner)
    states = replace(  # float32, and never spread over processes
        states,
        weights=states.weights + 4 * trained + frozen * BYTES[config.dtype],
        gradients=states.gradients + 4 * trained,
        optimizer=states.optimizer + 8 * trained,
    )
    if _projects_gradients(config):
        states = replace(states, gradients=2 * states.gradients)
    if config.adapter:  # its own gradients and moments are a hundredth of these, and not counted
        states = replace(states, gradients=0, optimizer=0, host=0)
    logits = planner.trained_logits(batch * length) + memory.head_gradient(size, precision)
    return replace(states, activations=kept, logits=logits)


def _projects_gradients(config: Config) -> bool:
    """Whether gradients of some terms are kept beside those of the others."""
    return any(objective.requirements.projects_gradient and objective.weight for objective in config.objectives)


def _module_parameters(planner: Planner) -> tuple[int, int]:
    """Numbers that the modules of terms hold for all sources: trained and frozen ones."""
    config, width = planner.config, planner.sizes["pivot"].hidden
    sources = [source.name for source in config.sources if source.name in planner.sizes]
    each = [
        auxiliary_modules.count_parameters(
            config.objectives, width, planner.sizes[name].hidden, planner.vocabulary(name)
        )
        for name in sources
    ]
    return sum(trained for trained, _ in each), sum(frozen for _, frozen in each)


def training_stage(planner: Planner, name: str, rank: Memory) -> Estimate:
    """A training of the pivot, of which one process takes `rank`."""
    config, size, counts = planner.config, planner.sizes["pivot"], planner.counts("pivot")
    given = config.training
    batch, accumulated = planner.micro_batch()
    each = batch * accumulated * config.plan.gpus
    steps_an_epoch = math.ceil(counts.examples / each)
    steps = int(given.get("max_steps", -1))
    epochs = float(given.get("num_train_epochs", 3.0)) if steps < 0 else steps / steps_an_epoch
    steps = steps if steps >= 0 else math.ceil(epochs * steps_an_epoch)
    rows = batch * counts.rows / counts.examples
    again = (
        rows > config.logits_chunk
        if config.logits_chunk
        else rows * planner.vocabulary("pivot") > config.logits_budget << 18
    )
    back = 2 if _projects_gradients(config) and name != BASELINE else 1
    work = epochs * training(size, counts, bool(given.get("gradient_checkpointing")), again, back)
    disk = model_bytes(size, config) + _checkpoints(config, steps, steps_an_epoch) * _checkpoint(size, config)
    return Estimate(f"train {name}", counts.examples, round(epochs * counts.tokens), steps, disk, rank, work)


def model_bytes(size: Architecture, config: Config) -> int:
    """Of a saved model."""
    return size.parameters * BYTES[config.dtype]


def _checkpoint(size: Architecture, config: Config) -> int:
    """A model and its optimizer: plain torch keeps both moments in the type of the weights, DeepSpeed 12 bytes a parameter."""
    width = BYTES[config.dtype]
    ours = 12 if engine_of(config).kind.startswith("zero") else 2 * width
    return size.parameters * (width + ours)


def _checkpoints(config: Config, steps: int, steps_an_epoch: int) -> int:
    """How many lie on the disk at the most; a new one is written before the oldest goes."""
    given = config.training
    strategy, limit = str(given.get("save_strategy", "steps")), given.get("save_total_limit", 1)
    if strategy == "no":
        return 0
    every = float(given.get("save_steps", 500)) if strategy == "steps" else steps_an_epoch
    saves = math.ceil(steps / max(1, every if every >= 1 else every * steps))  # the last step saves too
    return saves if limit is None else min(saves, int(limit) + 1)


def fine_tunings(planner: Planner, engine: Engine) -> list[Estimate]:
    """Of the sources that are fine-tuned before they teach."""
    stages = []
    for source in planner.config.sources:
        for name, job in planner.job.fine_tunings(source).items():
            alone = replace(planner, job=job, sizes={"pivot": planner.sizes[source.name]})
            checkpointed = bool(job.config.training.get("gradient_checkpointing"))
            found = training_stage(alone, BASELINE, process(alone, engine, checkpointed))
            stages.append(replace(found, stage=f"fine-tune {name.removeprefix('sources/')}"))
    return stages
