"""Tables show the numbers of `statistics`, mark what the paired interval shows, and explain themselves."""

import io

import pytest
from rich.console import Console, Group

from fusion.report.score_table import (
    helping_cells,
    helping_rows,
    helping_table,
    markdown,
    score_table,
    terminal_tables,
)
from fusion.runtime.run_file import Helping
from fusion_eval.results import Result, Sample
from fusion_eval.statistics.comparison import compare, summarise
from fusion_eval.statistics.metrics import METRICS
from tests.helpers.report_runs import SKILL, result, run_json


def drawn(renderable, width: int = 300) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def all_results() -> list[Result]:
    return [result(model) for model in SKILL]


def test_every_cell_is_the_value_and_the_interval_of_its_domain_and_metric():
    results = all_results()
    found = score_table(results, "finetune")
    assert len(found.columns) == 4 * 2  # three domains and their mean, two metrics
    assert found.columns[-1] == ("mean", "exact_match")
    for one, (model, cells) in zip(results, found.rows, strict=True):
        assert model == one.model
        for (domain, metric), cell in zip(found.columns, cells, strict=True):
            interval, show = summarise(one)[domain][metric], METRICS[metric].show
            ends = f"({show(interval.low)} to {show(interval.high)})"
            spread = f"±{show((interval.high - interval.low) / 2)}" if interval.is_symmetric else ends
            assert cell.text.rstrip("★▼") == f"{show(interval.value)} {spread}"


def test_a_mark_stands_where_the_paired_interval_excludes_zero_and_nowhere_else():
    # near: so like plain fine-tuning that some of its differences do not show
    results = [result("finetune"), result("unified"), result("pivot"), result("near", SKILL["finetune"])]
    found = score_table(results, "finetune")
    seen = set()
    for one, (_, cells) in zip(results[1:], found.rows[1:], strict=True):
        for (domain, metric), cell in zip(found.columns, cells, strict=True):
            difference = compare(one, results[0])[domain][metric]
            better = difference.value < 0 if metric == "bits_per_byte" else difference.value > 0
            expected = "" if difference.low <= 0 <= difference.high else "★" if better else "▼"
            assert cell.mark == expected
            seen.add(expected)
    assert seen == {"", "★", "▼"}
    assert {cell.mark for cell in found.rows[0][1]} == {""}  # the baseline is not compared with itself


def test_without_a_baseline_there_are_no_marks_and_no_word_of_them():
    found = score_table(all_results(), None)
    assert {cell.mark for _, cells in found.rows for cell in cells} == {""}
    assert "★" not in found.caption


def test_the_best_of_each_column_is_bold_lowest_bits_and_highest_matches():
    found = score_table(all_results(), None)
    for column, (_, metric) in enumerate(found.columns):
        values = [cells[column].interval.value for _, cells in found.rows]
        best = min(values) if metric == "bits_per_byte" else max(values)
        assert [cells[column].best for _, cells in found.rows] == [value == best for value in values]


def test_models_that_tie_are_both_bold_and_a_single_model_is_not():
    same = result("a", 0.5)
    twice = score_table([same, same.model_copy(update={"model": "b"})], None)
    assert all(cell.best for _, cells in twice.rows for cell in cells)
    assert not any(cell.best for _, cells in score_table([same], None).rows for cell in cells)


def test_the_caption_explains_the_marks_and_counts_the_examples_of_each_domain():
    caption = score_table(all_results(), "finetune").caption
    assert "★ better, ▼ worse than finetune: the paired 95% interval of the difference excludes 0" in caption
    assert "n: dates 40, lists 40, sums 40, mean 120." in caption


def test_the_terminal_table_and_the_markdown_hold_every_cell():
    results, found = all_results(), score_table(all_results(), "finetune")
    terminal, document = drawn(Group(*terminal_tables(results, "finetune"))), markdown(results, "finetune")
    lines = document.splitlines()
    assert len(lines[:7]) == len(found.rows) + 2
    for line, (model, cells) in zip(lines[2:7], found.rows, strict=True):
        written = [cell.strip() for cell in line.strip("|").split("|")]
        assert written == [model, *(f"**{c.text}**" if c.best else c.text for c in cells)]
        assert all(cell.text in terminal for cell in cells)
    assert terminal.index("unified") < terminal.index("finetune") < terminal.index("pivot")
    assert " ".join(found.caption.split()) in " ".join(terminal.split())


def test_only_the_best_is_bold_in_the_terminal():
    parts = Console(width=300).render(Group(*terminal_tables(all_results(), None)))
    bold = {part.text.strip() for part in parts if part.style is not None and part.style.bold}
    cells = [cell for _, cells in score_table(all_results(), None).rows for cell in cells]
    assert {cell.text for cell in cells} & bold == {cell.text for cell in cells if cell.best}


def test_a_narrow_terminal_cuts_no_number():
    narrow = drawn(Group(*terminal_tables(all_results(), "finetune")), width=90)
    for _, cells in score_table(all_results(), "finetune").rows:
        assert all(cell.value in narrow and f"{cell.spread}{cell.mark}" in narrow for cell in cells)
    assert "…" not in narrow + drawn(Group(*terminal_tables(all_results(), "finetune")), width=60)


def test_a_domain_a_model_was_not_measured_on_stays_empty():
    part = result("part", 0.5)
    part = part.model_copy(update={"samples": [item for item in part.samples if item.domain != "sums"]})
    found = score_table([result("unified"), part], None)
    cells = dict(zip(found.columns, found.rows[1][1], strict=True))
    assert cells["sums", "exact_match"].text == "–"
    assert not cells["sums", "exact_match"].best
    assert "sums 40, mean 80 or 120" in found.caption


def test_one_example_is_shown_without_an_end_to_its_interval():
    one = Sample(id="1", domain="sums", bytes=1, nll=1.0, exact_match=None, prompt="", target="2", answer=None)
    alone = Result(model="a", suite="s", path="a", provenance={}, samples=[one])
    assert score_table([alone], None).rows[0][1][0].text == "1.443 ±∞"


def test_names_cannot_break_a_markdown_table():
    odd = result("unified").model_copy(update={"model": "a|b <script> *x*\nnext"})
    line = markdown([odd], None).splitlines()[2]
    assert line.startswith("| a\\|b &lt;script> \\*x\\* next |")


def test_names_are_no_markup_in_the_terminal():
    odd = result("unified").model_copy(update={"model": "[red]name[/red] [/]"})
    assert "[red]name[/red] [/]" in drawn(Group(*terminal_tables([odd], None)))


@pytest.mark.parametrize(
    ("results", "baseline", "why"),
    [
        ([], None, "no results"),
        ([result("unified"), result("unified")], None, "same model name.*unified, unified"),
        ([result("unified"), result("pivot", suite="other")], None, "these results are of heldout, other"),
        ([result("unified")], "plain", "'plain' is not among the models evaluated: unified"),
    ],
)
def test_results_that_make_no_table_are_refused(results, baseline, why):
    with pytest.raises(ValueError, match=why):
        score_table(results, baseline)


def test_fewer_resamples_reach_the_statistics():
    few, many = (score_table([result("pivot")], None, resamples=n).rows[0][1][0].interval for n in (50, 2000))
    assert few.value == many.value
    assert few.half != many.half


def test_the_helping_table_shows_difference_and_verdict_of_every_row():
    rows = run_json()["helping"]
    text = drawn(helping_table(rows))
    assert [helping_cells(row)[6:] for row in helping_rows(rows[:3])] == [
        ["+0.310", "0.80", "knows more"],
        ["+0.004", "0.50", "about equal"],
        ["-0.200", "0.10", "knows less"],
    ]
    assert text.count("knows more") == 2
    assert text.count("tiny-llama") == 3
    assert "nats per byte" in text
    assert "77.0%" in text


def test_helping_rows_may_be_read_already():
    row = run_json()["helping"][0]
    assert helping_rows([Helping(**row)]) == helping_rows([row])


def test_what_was_not_measured_has_no_verdict():
    row = run_json()["helping"][0] | {"gold_source": None, "weight": None, "rows": 0, "match_rate": 0.0}
    assert helping_cells(helping_rows([row])[0])[2:] == ["0", "0.0%", "–", "–", "–", "–", "not measured"]


def test_a_helping_row_that_lacks_a_number_is_refused():
    row = run_json()["helping"][0]
    del row["match_rate"]
    with pytest.raises(ValueError, match="match_rate"):
        helping_table([row])
