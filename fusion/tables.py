"""Tables of the command line: what a run will take, what it is made of, and how its tokenizers meet."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table

from fusion.align import Audit, Share
from fusion.inspect import Overview
from fusion.plan import Estimate
from fusion.rescaling import Rescaling


def plan_table(estimates: Sequence[Estimate]) -> Table:
    """One line a stage, and the sums that matter."""
    table = Table(
        title="What this run will take",
        caption="Estimates from configurations; no weights were read. memory: the peak of a stage.",
    )
    table.add_column("stage", no_wrap=True, min_width=max(len(e.stage) for e in estimates))
    for name in ("examples", "tokens", "steps", "disk", "memory", "work"):
        table.add_column(name, justify="right")
    for e in estimates:
        steps = "" if e.steps is None else f"{e.steps:,}"
        cells = (_count(e.examples), _count(e.tokens), steps, size(e.disk), size(e.memory), work(e.flops))
        table.add_row(e.stage, *cells)
    disk, peak = sum(e.disk for e in estimates), max(e.memory for e in estimates)
    table.add_section()
    table.add_row("all", "", "", "", size(disk), size(peak), work(sum(e.flops for e in estimates)))
    return table


def overview_table(models: Sequence[Overview]) -> Table:
    """One line a model."""
    table = Table(
        "model", "type", "vocabulary", "prompts", "same tokens", "mapped tokens", "cache",
        title="Models", caption="same, mapped: share of a source's vocabulary that the pivot has, byte for byte or by the map",
    )  # fmt: skip
    for m in models:
        shares = ["" if share is None else f"{share:.1%}" for share in (m.exact, m.mapped)]
        table.add_row(m.name, m.model_type, f"{m.vocabulary:,}", m.template, *shares, m.cached)
    return table


def audit_tables(name: str, audit: Audit) -> list[RenderableType]:
    """Match rates by domain and by class of text, and the tokens that never match."""
    table = Table("", "rows", "matched", title=f"{name}: positions of the pivot that it can teach")
    for title, shares in (("by domain", audit.by_domain), ("by the text that follows", audit.by_class)):
        table.add_section()
        table.add_row(f"[bold]{title}[/]", "", "")
        for label, share in shares.items():
            table.add_row(label, f"{share.rows:,}", _rate(share))
    table.add_section()
    table.add_row("all", f"{audit.total.rows:,}", _rate(audit.total))
    never = ", ".join(f"{text!r} ({count})" for text, count in audit.never[:12])
    return [table, f"never matched: {never or 'nothing'}\n"]


def rescaling_table(name: str, entries: Sequence[Rescaling]) -> Table:
    """One line for each domain and bin of the pivot's probability of the true token."""
    table = Table(
        title=f"{name}: gradient at the true token, as a factor of cross-entropy's",
        caption="near 1: no more than the text says; below 0: the true token is pulled down",
    )
    table.add_column("domain")
    for column in ("pivot's p", "rows", "10%", "median", "90%", "below 0"):
        table.add_column(column, justify="right")
    for e in entries:
        cells = (f"{e.low:g} to {e.high:g}", f"{e.rows:,}", f"{e.tenth:.2f}", f"{e.median:.2f}", f"{e.ninetieth:.2f}")
        table.add_row(e.domain, *cells, f"{e.negative:.1%}")
    return table


def size(count: int | float) -> str:
    """Bytes in words: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if count else ""
        count /= 1000
    return f"{count:.3g} TB"


def work(flops: int | float) -> str:
    """Floating-point operations in words: 1.5 TFLOP."""
    for unit in ("MFLOP", "GFLOP", "TFLOP", "PFLOP"):
        flops /= 1000 if unit != "MFLOP" else 1e6
        if flops < 1000:
            return f"{flops:.3g} {unit}" if flops else ""
    return f"{flops / 1000:.3g} EFLOP"


def _count(count: int) -> str:
    return f"{count:,}" if count else ""


def _rate(share: Share) -> str:
    return f"{share.rate:.1%}" if share.rows else ""
