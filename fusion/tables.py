"""Tables of the command line: what a run is made of, and how its tokenizers meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from fusion.align import Audit, Share
from fusion.draft import Acceptance
from fusion.inspect import Overview
from fusion.rescaling import Rescaling


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


def facts_table(folder: Path, facts: Mapping[str, str]) -> Table:
    """One line a fact."""
    table = Table("", "", title=str(folder), show_header=False)
    for name, value in facts.items():
        table.add_row(name, value)
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


def acceptance_table(name: str, found: Sequence[Acceptance]) -> Table:
    """One line for each temperature."""
    depth = len(found[0].stands)
    table = Table(
        title=f"{name}: guesses that stand", caption="tokens a check: the model's own included, at most depth + 1"
    )
    for column in ("", "checks", "tokens a check", *(f"{n} stand" for n in range(1, depth + 1))):
        table.add_column(column, justify="right")
    for one in found:
        kind = f"sampled, temperature {one.temperature:g}" if one.temperature else "greedy"
        table.add_row(kind, f"{one.checks:,}", f"{one.length:.2f}", *(f"{share:.0%}" for share in one.stands))
    return table


def _rate(share: Share) -> str:
    return f"{share.rate:.1%}" if share.rows else ""
