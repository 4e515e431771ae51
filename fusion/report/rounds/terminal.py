"""The table of rounds in the terminal."""

from __future__ import annotations

from rich.text import Text

from fusion.report.rounds.scores import generations, kept_sentence, round_rows, share
from fusion.runtime.console_table import ConsoleTable
from fusion.runtime.run_file import RoundsFacts


def rounds_table(facts: RoundsFacts) -> ConsoleTable | str:
    """One line for each domain and round; where nothing was validated, the sentence alone that says so."""
    if not facts.is_validated:
        return kept_sentence(facts)
    table = ConsoleTable(
        "domain", "after", title="Rounds: answers of the pivot to validation prompts", caption=kept_sentence(facts)
    )
    several = [f"pass@{generations(facts)}"] if generations(facts) > 1 else []
    for name in ("pass@1", *several, "ended", "tokens"):
        table.add_column(name, justify="right")
    before = None
    for row in round_rows(facts):
        if before not in (None, row.domain):
            table.add_section()
        shares = [" ".join(share(each)) for each in (row.pass_at_1, *([row.pass_at_n] if several else []), row.ended)]
        name = f"{row.name}, kept" if row.kept else row.name
        style = "bold" if row.kept else ""
        table.add_row(Text(row.domain), name, *shares, f"{row.tokens:.1f}", style=style)
        before = row.domain
    return table
