"""Tables that commands print of what they did: values by name, responses, and acceptance of a draft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fusion.runtime.console_table import ConsoleTable
from fusion.runtime.run_file import ResponseCounts

if TYPE_CHECKING:
    from fusion.extras.draft import Acceptance


def key_value_table(title: str, values: Mapping[str, str]) -> ConsoleTable:
    """Return a table with a row for each entry of a mapping: its name, and its value."""
    table = ConsoleTable("", "", title=title, show_header=False)
    for name, value in values.items():
        table.add_row(name, value)
    return table


def responses_table(counts: Sequence[ResponseCounts]) -> ConsoleTable:
    """Return a table of what sources answered: a row for each source and domain."""
    table = ConsoleTable(
        "source",
        "domain",
        title="Responses",
        caption="prompts: asked of the source; answers: neither empty nor cut off; pass: the check of their data set"
        + ("" if all(c.judged is None for c in counts) else ", of prompts with a reference"),
    )
    for name in ("prompts", "answers", "pass", "learned from"):
        table.add_column(name, justify="right")
    for c in counts:
        judged = c.answers if c.judged is None else c.judged
        share = f"{c.passed:,}" + (f" of {judged:,}" if c.judged is not None else "")
        share += f" ({c.passed / judged:.0%})" if judged else ""
        table.add_row(c.source, c.domain, f"{c.prompts:,}", f"{c.answers:,}", share, f"{c.chosen:,}")
    return table


def acceptance_table(name: str, measured: Sequence[Acceptance]) -> ConsoleTable:
    """Return a table of how many draft tokens were accepted: a row for each temperature of sampling."""
    depth = len(measured[0].acceptance_rates)
    table = ConsoleTable(
        title=f"{name}: draft tokens accepted",
        caption="acceptance length: mean tokens a check (one verification pass), the model's own included; at most depth + 1",
    )
    for column in ("", "checks", "acceptance length", *(f"{n} accepted" for n in range(1, depth + 1))):
        table.add_column(column, justify="right")
    for entry in measured:
        kind = f"sampled, temperature {entry.temperature:g}" if entry.temperature else "greedy"
        table.add_row(
            kind,
            f"{entry.checks:,}",
            f"{entry.acceptance_length:.2f}",
            *(f"{share:.0%}" for share in entry.acceptance_rates),
        )
    return table
