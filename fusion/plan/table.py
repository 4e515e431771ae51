"""Tables of a plan: a line for each stage, a line for each engine, and a sentence for what would not fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType

from fusion.config import Plan as PlanSettings
from fusion.config.gpus import GPUS
from fusion.plan.estimates import RunPlan, StageEstimate, rounds_as_one
from fusion.plan.flops import seconds
from fusion.plan.memory import Memory
from fusion.plan.misfits import misfits
from fusion.plan.units import count, format_flops, size, size_in, time, unit
from fusion.runtime.console_table import ConsoleTable

PARTS = {
    "weights": "weights", "gradients": "grads", "optimizer": "optim.", "buffers": "buffers", "activations": "activ.",
    "logits": "logits",
}  # fmt: skip


def plan_tables(plan: RunPlan, given: PlanSettings) -> list[RenderableType]:
    """Tables of stages, and of engines where there are several GPUs or a GPU is named; then sentences on what does not fit."""
    several = given.gpus > 1 or given.gpu is not None
    return [stages_table(plan, given), *([engines_table(plan, given)] if several else []), *misfits(plan, given)]


def stages_table(plan: RunPlan, given: PlanSettings) -> ConsoleTable:
    """One line for each stage, and their sums and peak."""
    where = f" on {given.gpus} x {given.gpu}" if given.gpu else f" on {given.gpus} GPUs" if given.gpus > 1 else ""
    table = _table(f"What this run will take{where}")
    table.caption = _caption(plan, given)
    table.add_column("stage")
    for name in ("examples", "tokens", "steps", "disk", "memory", "FLOPs", *(["time"] if given.gpu else [])):
        table.add_column(name, justify="right")
    for e in rounds_as_one(plan.stages):
        steps = "" if e.steps is None else f"{e.steps:,}"
        cells = (count(e.examples), count(e.tokens), steps, size(e.disk), size(e.memory.total), format_flops(e.flops))
        table.add_row(e.stage, *cells, *_time([e], given))
    disk, peak = sum(e.disk for e in plan.stages), max(e.memory.total for e in plan.stages)
    total = sum(e.flops for e in plan.stages)
    table.add_section()
    table.add_row("all", "", "", "", size(disk), size(peak), format_flops(total), *_time(plan.stages, given))
    return table


def engines_table(plan: RunPlan, given: PlanSettings) -> ConsoleTable:
    """One line for each engine: memory of one process in a training, item by item; a tick where the GPU holds it."""
    own, less = plan.engines, plan.checkpointed
    name = unit(max(memory.total for memory in less.values()))
    table = _table(f"One process of {given.gpus} in a training, by engine and what it offloads, in {name}")
    twice = "all*: with gradient checkpointing, which computes layers twice. " if own != less else ""
    table.caption = f"{twice}host: in the host's memory."
    table.add_column("engine")
    for head in (*PARTS.values(), "all", *(["all*"] if own != less else []), "host"):
        table.add_column(head, justify="right")
    for engine, memory in own.items():
        totals = [_total(memory, name, given), *([_total(less[engine], name, given)] if own != less else [])]
        parts = [size_in(getattr(memory, part), name) for part in PARTS]
        style = "bold" if engine == plan.engine else None
        table.add_row(str(engine), *parts, *totals, size_in(memory.host, name), style=style)
    return table


def gpu_hours(flops: int | float, given: PlanSettings) -> float:
    """GPU-hours that so many operations take at the given utilisation; `given.gpu` must be named."""
    assert given.gpu is not None
    return seconds(flops, gpus=1, peak=GPUS[given.gpu].peak, mfu=given.mfu) / 3600


def _time(stages: Sequence[StageEstimate], given: PlanSettings) -> list[str]:
    if given.gpu is None:
        return []
    return [time(3600 * sum(gpu_hours(e.flops, given) / (given.gpus if e.parallel else 1) for e in stages))]


def _total(memory: Memory, name: str, given: PlanSettings) -> str:
    tick = "" if given.gpu is None else " ✓" if memory.fits(GPUS[given.gpu].memory) else " ✗"
    return size_in(memory.total, name) + tick


def _table(title: str) -> ConsoleTable:
    """A narrow table: eight columns of numbers fit 80 characters."""
    return ConsoleTable(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)


def _caption(plan: RunPlan, given: PlanSettings) -> str:
    notes = ["Estimates from configurations; no weights were read.", "memory: the peak of one process."]
    if given.gpu:
        hours = gpu_hours(sum(e.flops for e in plan.stages), given)
        peak = GPUS[given.gpu].peak / 1e12
        notes.append(
            f"time: at {given.mfu:.0%} (plan.mfu, an assumption) of {peak:,.0f} TFLOP/s; {hours:,.1f} GPU-hours "
            f"in all{'' if given.gpus == 1 else ', evaluations on one GPU'}."
        )
    if watched := [stage for stage in plan.stages if stage.validation_points]:
        share = sum(stage.validation_flops for stage in watched) / sum(stage.flops for stage in watched)
        points = sorted({stage.validation_points for stage in watched})
        times = f"{points[0]}" if len(points) == 1 else f"{points[0]} to {points[-1]}"
        notes.append(
            f"Trainings are read on the validation examples {times} times each, {share:.1%} of what they take."
        )
    if rounds := [stage for stage in plan.stages if stage.round is not None]:
        share = sum(stage.flops for stage in rounds) / sum(stage.flops for stage in plan.stages)
        disk = size(sum(stage.disk for stage in rounds))
        notes.append(f"All rounds together: {share:.1%} of the FLOPs, {disk} of disk; texts as long as they may get.")
    if plan.from_settings:
        notes.append("Examples and tokens from plan.tokens and limits, not counted.")
    if plan.bundled:
        names = ", ".join(plan.bundled)
        notes.append(
            f"Sizes of {names} from the few this package knows: neither a folder nor the hub gave a config.json."
        )
    return " ".join(notes)
