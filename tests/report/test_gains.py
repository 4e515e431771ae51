"""Gains and losses are paired differences against pivot, plain fine-tuning and the best source of each domain."""

import pytest
from report_runs import DOMAINS, SKILL, change, result, write_run

from fusion.report.gains import BEST, all_gains, gain_cell, gains
from fusion.report.record import Record, read_run
from fusion_eval.gap import best_of, gap_closed
from fusion_eval.statistics import Interval, compare


@pytest.fixture
def record(tmp_path) -> Record:
    return read_run(write_run(tmp_path / "run"))


def test_each_difference_is_that_of_the_statistics(record):
    found = gains(record, "heldout", "exact_match")
    assert (found.model, [row.domain for row in found.rows]) == ("unified", [*DOMAINS, "mean"])
    for other in ("pivot", "finetune"):
        expected = compare(result("unified"), result(other))
        assert {row.domain: row.differences[other] for row in found.rows} == {
            d: m["exact_match"] for d, m in expected.items()
        }


def test_the_best_source_is_named_in_each_domain_and_the_gap_is_the_way_to_it(record):
    found = gains(record, "heldout", "exact_match")
    best = best_of([result("smol"), result("tiny-llama")], "exact_match", BEST)
    assert {row.domain: row.best for row in found.rows} == best.made | {"mean": BEST}
    assert found.rows[0].differences[BEST] == compare(result("unified"), best)[DOMAINS[0]]["exact_match"]
    for model in ("unified", "finetune"):
        assert found.closed[model] == gap_closed(result(model), result("pivot"), best, "exact_match")


def test_regressions_are_domains_that_are_shown_to_be_worse_against_pivot_or_plain_fine_tuning(tmp_path):
    record = read_run(write_run(tmp_path / "run", SKILL | {"unified": 0.45}))
    found = gains(record, "heldout", "bits_per_byte").regressions
    worse = [d for d in DOMAINS if compare(result("unified", 0.45), result("finetune"))[d]["bits_per_byte"].low > 0]
    assert found == {"finetune": worse}  # better than the pivot, worse than the best source, which is no regression
    assert worse == list(DOMAINS)
    assert gains(read_run(write_run(tmp_path / "good")), "heldout", "bits_per_byte").regressions == {}


def test_where_no_source_is_better_than_the_pivot_there_is_no_gap(tmp_path):
    skills = SKILL | {"pivot": 0.9}
    assert gains(read_run(write_run(tmp_path / "run", skills)), "heldout", "exact_match").closed == {}


def test_every_suite_and_metric_is_compared_and_what_is_missing_is_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    result("unified", suite="other").save(run / "eval" / "unified" / "other.json")
    assert set(all_gains(read_run(run))) == {("heldout", "bits_per_byte"), ("heldout", "exact_match")}
    change(run, result="never")
    assert all_gains(read_run(run)) == {}


def test_a_cell_has_a_sign_a_spread_and_a_mark():
    assert gain_cell("exact_match", Interval(0.078, 0.05, 0.11, 9)) == ("+7.8", "±3.0", "★")
    assert gain_cell("bits_per_byte", Interval(0.078, 0.05, 0.11, 9)) == ("+0.078", "±0.030", "▼")
    assert gain_cell("exact_match", Interval(-0.01, -0.05, 0.03, 9)) == ("-1.0", "±4.0", "")
    assert gain_cell("exact_match", None) == ("–", "", "")
