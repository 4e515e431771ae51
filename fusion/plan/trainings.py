"""What the trainings of a run take: one process by engine, and each training as a stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fusion.config import Config, baseline_training
from fusion.config.conflicts import WHOLE
from fusion.plan import memory
from fusion.plan.architecture import Architecture
from fusion.plan.estimates import BYTES_PER_NUMBER, Planner, StageEstimate
from fusion.plan.flops import Counts, forward_flops, training_flops
from fusion.plan.memory import EngineOption, Memory, Precision
from fusion.training import BASELINE, auxiliary_modules
from fusion.training.validation import validation_points


def checkpoints_activations(training: Mapping[str, Any]) -> bool:
    """Whether layers are computed twice to save memory, by either of the names that transformers has for it."""
    return bool(training.get("activation_checkpointing") or training.get("gradient_checkpointing"))


def configured_engine(config: Config) -> EngineOption:
    """The engine that the run would use on so many GPUs."""
    kind = config.engine.kind
    plain: memory.Kind = "single" if config.plan.gpus == 1 else "ddp"
    return EngineOption(plain if kind == "auto" else kind, config.engine.offload)


def engine_options(config: Config) -> list[EngineOption]:
    """The engines worth comparing: the configured one, and of the others those that make sense on so many GPUs.

    On one GPU the plain one and those that offload, on several all but the plain one; where objectives bring auxiliary
    modules, only the engines that can train them.
    """
    one, chosen = config.plan.gpus == 1, configured_engine(config)
    whole = any(objective.requirements.trains_module for objective in config.objectives)
    return [
        e
        for e in memory.ENGINE_OPTIONS
        if e == chosen
        or (
            (e.kind == "single" or e.offload != "none" if one else e.kind != "single")
            and (e.kind in WHOLE or not whole)
        )
    ]


def _precision(config: Config) -> Precision:
    width = BYTES_PER_NUMBER[config.dtype]
    mixed = bool(config.training.get("bf16") or config.training.get("fp16"))
    return Precision(width, 2 if mixed else width, mixed)


def training_memory(planner: Planner, engine: EngineOption, checkpointed: bool) -> Memory:
    """Memory of one process in a training of the pivot."""
    config, size = planner.config, planner.sizes["pivot"]
    (batch, _), length = planner.micro_batch(), planner.counts("pivot").longest
    precision = _precision(config)
    activations = memory.activations(
        size, batch * length, length, precision, batch > 1 and not config.packing, checkpointed
    )
    states = memory.model_states(size, engine, precision, config.plan.gpus)
    trained, frozen = _auxiliary_parameters(planner)
    states = replace(  # float32, and never spread over processes
        states,
        weights=states.weights + 4 * trained + frozen * BYTES_PER_NUMBER[config.dtype],
        gradients=states.gradients + 4 * trained,
        optimizer=states.optimizer + 8 * trained,
    )
    if _projects_gradients(config):
        states = replace(states, gradients=2 * states.gradients)
    if config.adapter:  # its own gradients and moments are a hundredth of these, and not counted
        states = replace(states, gradients=0, optimizer=0, host=0)
    logits = planner.trained_logits(batch * length) + memory.head_gradient(size, precision)
    return replace(states, activations=activations, logits=logits)


def _projects_gradients(config: Config) -> bool:
    """Whether an objective projects gradients, for which those of some terms are kept beside those of the others."""
    return any(objective.requirements.projects_gradient and objective.weight for objective in config.objectives)


def _auxiliary_parameters(planner: Planner) -> tuple[int, int]:
    """Trainable and frozen parameters of the auxiliary modules that objectives bring, over all sources."""
    config, width = planner.config, planner.sizes["pivot"].hidden_size
    sources = [source.name for source in config.sources if source.name in planner.sizes]
    each = [
        auxiliary_modules.count_parameters(
            config.objectives, width, planner.sizes[name].hidden_size, planner.vocabulary(name)
        )
        for name in sources
    ]
    return sum(trained for trained, _ in each), sum(frozen for _, frozen in each)


def training_stage(planner: Planner, name: str, process_memory: Memory) -> StageEstimate:
    """The training `name` of the pivot, of which one process takes `process_memory`."""
    config, size, counts = planner.config, planner.sizes["pivot"], _counts(planner, name)
    if name == BASELINE:
        config = config.model_copy(update={"training": baseline_training(config)})
    batch, accumulated = planner.micro_batch(config.training)
    each = batch * accumulated * config.plan.gpus
    steps_an_epoch = math.ceil(counts.examples / each)
    steps = int(config.training.get("max_steps", -1))
    epochs = float(config.training.get("num_train_epochs", 3.0)) if steps < 0 else steps / steps_an_epoch
    steps = steps if steps >= 0 else math.ceil(epochs * steps_an_epoch)
    flops = epochs * training_flops(
        size,
        counts,
        checkpointed=checkpoints_activations(config.training),
        recompute_logits=_recomputes_logits(planner, batch * counts.rows / counts.examples),
        backward_passes=2 if _projects_gradients(config) and name != BASELINE else 1,
    )
    disk = model_bytes(size, config) + _checkpoints(config, steps, steps_an_epoch) * _checkpoint(size, config)
    points, read = _validation(planner, steps, epochs)
    return StageEstimate(
        f"train {name}",
        counts.examples,
        round(epochs * counts.tokens),
        steps,
        disk,
        process_memory,
        flops + read,
        validation_points=points,
        validation_flops=read,
    )


def _counts(planner: Planner, name: str) -> Counts:
    """What a training reads in an epoch: plain fine-tuning the data's own responses, also where the others learn answers."""
    counts, context = planner.counts("pivot"), planner.context
    if name != BASELINE or planner.from_settings or context.baseline_context is context:
        return counts
    return counts.scaled(len(context.baseline_context.train_examples))


def _validation(planner: Planner, steps: int, epochs: float) -> tuple[int, float]:
    """How often a training is read on validation examples, and what that takes in all."""
    points = validation_points(planner.context.validation_arguments, steps, epochs)
    if not points:
        return 0, 0.0
    return points, points * forward_flops(planner.sizes["pivot"], planner.validation_counts())


def _recomputes_logits(planner: Planner, rows: float) -> bool:
    """Whether the logits of so many rows do not exist all at once, so that the backward pass computes them again."""
    config = planner.config
    if config.logits_chunk:
        return rows > config.logits_chunk
    return rows * planner.vocabulary("pivot") > config.logits_budget << 18


def model_bytes(size: Architecture, config: Config) -> int:
    """Return the bytes of a saved model, in the type that the run trains in."""
    return size.parameters * BYTES_PER_NUMBER[config.dtype]


def _checkpoint(size: Architecture, config: Config) -> int:
    """What is trained and its optimizer: plain torch keeps both moments in the type of the weights, DeepSpeed 12 bytes each.

    Of an adapter a checkpoint has that alone, about a hundredth of the model.
    """
    width = BYTES_PER_NUMBER[config.dtype]
    optimizer = 12 if configured_engine(config).kind.startswith("zero") else 2 * width
    return (size.parameters // 100 if config.adapter else size.parameters) * (width + optimizer)


def _checkpoints(config: Config, steps: int, steps_an_epoch: int) -> int:
    """How many lie on the disk at the most; a new one is written before the oldest goes."""
    given = config.training
    strategy, limit = str(given.get("save_strategy", "steps")), given.get("save_total_limit", 2)
    if strategy == "no":
        return 0
    every = float(given.get("save_steps", 500)) if strategy == "steps" else steps_an_epoch
    saves = math.ceil(steps / max(1, every if every >= 1 else every * steps))  # the last step saves too
    return saves if limit is None else min(saves, int(limit) + 1)


def fine_tunings(planner: Planner, engine: EngineOption) -> list[StageEstimate]:
    """Trainings of the sources that are fine-tuned before they teach."""
    stages = []
    for source in planner.config.sources:
        for name, context in planner.context.fine_tunings(source).items():
            alone = replace(planner, context=context, sizes={"pivot": planner.sizes[source.name]})
            checkpointed = checkpoints_activations(context.config.training)
            found = training_stage(alone, BASELINE, training_memory(alone, engine, checkpointed))
            stages.append(replace(found, stage=f"fine-tune {name.removeprefix('sources/')}"))
    return stages
