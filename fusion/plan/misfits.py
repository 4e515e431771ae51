"""Stages that would not fit the GPU, and the least change that would make a training fit."""

from __future__ import annotations

from collections.abc import Iterator

from fusion.config import Plan as PlanSettings
from fusion.config.gpus import GPUS
from fusion.plan.estimates import RunPlan, rounds_as_one
from fusion.plan.memory import HEADROOM, Bytes, EngineOption
from fusion.plan.units import size


def misfits(plan: RunPlan, given: PlanSettings) -> Iterator[str]:
    """A sentence for each kind of stage that needs more than the GPU has; nothing where no GPU is named."""
    if given.gpu is None:
        return
    have = GPUS[given.gpu].memory
    too_large = [e for e in rounds_as_one(plan.stages) if not e.memory.fits(have)]
    trainings = [e for e in too_large if e.steps is not None]
    has = f"{given.gpu} has {size(have)}, of which {HEADROOM:.0%} is left free"
    if trainings:
        names = ", ".join(e.stage for e in trainings)
        needs = size(trainings[0].memory.total)
        yield f"does not fit: {names} with {plan.engine} needs {needs} a process, {has}; {_way_out(plan, have)}."
    for e in too_large:
        if e.steps is None:
            how = "with bfloat16 and fewer tokens at once it takes less (extract.dtype, extract.batch_tokens)"
            yield f"does not fit: {e.stage} needs {size(e.memory.total)} a process, {has}; {how}."


def smallest_fitting_engine(plan: RunPlan, have: Bytes) -> tuple[EngineOption, bool] | None:
    """The first engine, from the least communication on, that fits; and whether it takes gradient checkpointing to do so."""
    for engine, memory in plan.engines.items():
        if memory.fits(have):
            return engine, False
        if plan.checkpointed[engine].fits(have):
            return engine, True
    return None


def _way_out(plan: RunPlan, have: Bytes) -> str:
    found = smallest_fitting_engine(plan, have)
    if found is None:
        return "nothing fits: take more or larger GPUs, or a smaller data.max_length or per_device_train_batch_size"
    engine, checkpointed = found
    return f"smallest that fits: {engine}{' + gradient checkpointing' if checkpointed else ''}"
