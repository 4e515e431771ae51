"""Every table that a command prints, in terminals of 60 and 80 columns: no number is cut."""

import io
import re

import pytest
import torch
from rich.console import Console, Group

from fusion.alignment import AlignmentAudit, MatchRate
from fusion.analysis import Overview
from fusion.analysis.graph_distances import ENTROPIC, EXACT, LOWER, UPPER, GraphDistances
from fusion.analysis.rescaling import Rescaling
from fusion.extras.draft import Acceptance
from fusion.report.benchmark_tables import contamination_table, gap_table, subset_table
from fusion.report.console_tables import acceptance_table, key_value_table, responses_table
from fusion.report.inspect_tables import audit_tables, graph_tables, overview_table, rescaling_table
from fusion.report.score_table import helping_table, terminal_tables
from fusion.runtime.run_file import ResponseCounts
from fusion_eval.runners.contamination import DomainOverlap
from fusion_eval.statistics.gap import gap_closed
from fusion_eval.statistics.intervals import Interval
from tests.helpers.report_runs import SKILL, result, run_json

LONG = "SmolLM2-135M-Instruct"


def helping():
    rows = [row | {"source": LONG, "rows": 12_345_678, "gold_pivot": -10.52} for row in run_json()["helping"]]
    return helping_table(rows)


def scores():
    return Group(*terminal_tables([result(model) for model in SKILL], "finetune"))


def subsets():
    return subset_table([result(model) for model in SKILL])


def gaps():
    return gap_table(gap_closed(result("unified"), result("finetune"), [result("smol"), result("tiny-llama")]))


def contamination():
    score = Interval(0.512, 0.4, 0.6, 40)
    return contamination_table([DomainOverlap("truthfulqa_mc1", 12_345, ["a"] * 1000, 1234, score, score)], 13)


def responses():
    return responses_table([ResponseCounts(LONG, "instructions", 1_234_567, 1_234_000, 1_200_345, 1_100_001)])


def acceptance():
    return acceptance_table("draft", [Acceptance(0.7, 1_234_567, 3.21, [0.91, 0.8, 0.71, 0.6, 0.55, 0.5, 0.44])])


def audits():
    shares = {"instructions": MatchRate(1_134_567, 1_234_567)}
    return Group(*audit_tables(LONG, AlignmentAudit(MatchRate(1_134_567, 1_234_567), shares, shares, [])))


def rescalings():
    return rescaling_table(LONG, [Rescaling("instructions", 0.001, 0.01, 1_234_567, -1.23, 0.45, 12.34, 0.123)])


def graph_distances():
    ways = {LOWER: 0.0123, EXACT: 12.34, UPPER: 1234.5, ENTROPIC: 123.4}
    values = {way: torch.tensor([value, 1.5 * value]) for way, value in ways.items()}
    return Group(*graph_tables(LONG, GraphDistances(100, values, dict.fromkeys(ways, 12.3))))


def overviews():
    return overview_table(
        [Overview(LONG, "gemma3_text", 262_144, "its own chat template", 0.512, 0.633, "complete, 1,234 MB")]
    )


def values():
    return key_value_table("runs/a/cache", {"rows": "1,234,567,890", "bytes": "123.4 GB in 17 files of 8.1 GB each"})


TABLES = [
    helping,
    scores,
    gaps,
    contamination,
    responses,
    acceptance,
    audits,
    rescalings,
    graph_distances,
    overviews,
    values,
]


def drawn(renderable, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def numbers(text: str) -> list[str]:
    """All numbers of a text, sorted."""
    return sorted(re.findall(r"(?<![\w.,-])[-+±]?\d[\d,.]*\d%?|(?<![\w.,-])\d%?", text))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
@pytest.mark.parametrize("width", [60, 80])
def test_no_table_cuts_a_number_in_a_narrow_terminal(table, width):
    narrow = drawn(table(), width)
    assert "…" not in narrow
    assert numbers(narrow) == numbers(drawn(table(), 400))
    assert max(map(len, narrow.splitlines())) <= width


def test_the_numbers_of_all_tables_are_looked_at():
    assert len(TABLES) == 11
    assert all(len(numbers(drawn(table(), 400))) > 2 for table in TABLES)
