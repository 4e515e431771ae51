"""A plan as tables: one line a stage, one line an engine, and a sentence for what would not fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table

from fusion.config import Plan as Given
from fusion.config.gpus import GPUS
from fusion.plan.memory import Memory
from fusion.plan.planner import Estimate, Plan
from fusion.plan.units import count, size, size_in, time, unit, work
from fusion.plan.verdict import misfits
from fusion.plan.work import seconds

PARTS = {
    "weights": "weights", "gradients": "grads", "optimizer": "optim.", "buffers": "buffers", "activations": "activ.",
    "logits": "logits",
}  # fmt: skip


def tables_of_plan(plan: Plan, given: Given) -> list[RenderableType]:
    """Stages, then engines where there are several GPUs or a kind of GPU is named, then what does not fit."""
    several = given.gpus > 1 or given.gpu is not None
    return [stages_table(plan, given), *([engines_table(plan, given)] if several else []), *misfits(plan, given)]


def stages_table(plan: Plan, given: Given) -> Table:
    """One line a stage, and the sums that matter."""
    where = f" on {given.gpus} x {given.gpu}" if given.gpu else f" on {given.gpus} GPUs" if given.gpus > 1 else ""
    table = _table(f"What this run will take{where}")
    table.caption = _caption(plan, given)
    table.add_column("stage", no_wrap=True)
    for name in ("examples", "tokens", "steps", "disk", "memory", "work", *(["time"] if given.gpu else [])):
        table.add_column(name, justify="right")
    for e in plan.stages:
        steps = "" if e.steps is None else f"{e.steps:,}"
        cells = (count(e.examples), count(e.tokens), steps, size(e.disk), size(e.memory.total), work(e.work))
        table.add_row(e.stage, *cells, *_time([e], given))
    disk, peak = sum(e.disk for e in plan.stages), max(e.memory.total for e in plan.stages)
    total = sum(e.work for e in plan.stages)
    table.add_section()
    table.add_row("all", "", "", "", size(disk), size(peak), work(total), *_time(plan.stages, given))
    return table


def engines_table(plan: Plan, given: Given) -> Table:
    """One line an engine: what one process of a training holds, item by item; a tick where the GPU holds it."""
    own, less = plan.engines, plan.checkpointed
    name = unit(max(memory.total for memory in less.values()))
    table = _table(f"One process of {given.gpus} in a training, by engine and what it offloads, in {name}")
    twice = "all*: with gradient checkpointing, which computes layers twice. " if own != less else ""
    table.caption = f"{twice}host: beside the GPU."
    table.add_column("engine", no_wrap=True)
    for head in (*PARTS.values(), "all", *(["all*"] if own != less else []), "host"):
        table.add_column(head, justify="right")
    for engine, memory in own.items():
        totals = [_total(memory, name, given), *([_total(less[engine], name, given)] if own != less else [])]
        parts = [size_in(getattr(memory, part), name) for part in PARTS]
        style = "bold" if engine == plan.engine else None
        table.add_row(str(engine), *parts, *totals, size_in(memory.host, name), style=style)
    return table


def gpu_hours(work: int | float, given: Given) -> float:
    """Hours of GPUs together. `given.gpu` must be named."""
    assert given.gpu is not None
    return seconds(work, 1, GPUS[given.gpu].peak, given.mfu) / 3600


def _time(stages: Sequence[Estimate], given: Given) -> list[str]:
    if given.gpu is None:
        return []
    return [time(3600 * sum(gpu_hours(e.work, given) / (given.gpus if e.shared else 1) for e in stages))]


def _total(memory: Memory, name: str, given: Given) -> str:
    tick = "" if given.gpu is None else " ✓" if memory.fits(GPUS[given.gpu].memory) else " ✗"
    return size_in(memory.total, name) + tick


def _table(title: str) -> Table:
    """A narrow one: eight columns of numbers fit 80 characters."""
    return Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)


def _caption(plan: Plan, given: Given) -> str:
    notes = ["Estimates from configurations; no weights were read.", "memory: the peak of one process."]
    if given.gpu:
        hours = gpu_hours(sum(e.work for e in plan.stages), given)
        peak = GPUS[given.gpu].peak / 1e12
        notes.append(
            f"time: at {given.mfu:.0%} (plan.mfu, an assumption) of {peak:,.0f} TFLOP/s; {hours:,.1f} GPU-hours of work "
            f"in all{'' if given.gpus == 1 else ', evaluations on one GPU'}."
        )
    if plan.by_hand:
        notes.append("Examples and tokens as said by plan.tokens and limits, not counted.")
    if plan.shipped:
        names = ", ".join(plan.shipped)
        notes.append(
            f"Sizes of {names} from the few this package knows: neither a folder nor the hub gave a config.json."
        )
    return " ".join(notes)
