"""MetricDifferences and losses are paired differences against pivot, plain fine-tuning and the best source of each domain."""

import math

import numpy as np
import pytest

from fusion.report.differences import BEST_SOURCE, MetricDifferences, all_differences, bounded, difference_cell
from fusion.report.run_contents import RunContents, read_run
from fusion_eval.results import Result
from fusion_eval.statistics.comparison import compare
from fusion_eval.statistics.intervals import Interval
from tests.helpers.report_runs import DOMAINS, SKILL, change, result, write_run


@pytest.fixture
def contents(tmp_path) -> RunContents:
    return read_run(write_run(tmp_path / "run"))


def heldout(contents: RunContents, metric: str = "exact_match") -> MetricDifferences:
    return all_differences(contents)["heldout", metric]


def right(model: str, domain: str, skill: float | None = None) -> np.ndarray:
    items = sorted(result(model, skill).samples, key=lambda item: item.id)
    return np.array([item.exact_match for item in items if item.domain == domain], dtype=float)


def test_each_difference_is_that_of_the_statistics(contents):
    found = heldout(contents)
    assert (found.model, found.compared_with) == ("unified", ["pivot", "finetune", BEST_SOURCE])
    assert [row.domain for row in found.rows] == [*DOMAINS, "mean"]
    for other in ("pivot", "finetune"):
        expected = compare(result("unified"), result(other))
        mine = {row.domain: row.differences[other] for row in found.rows}
        assert mine == {domain: metrics["exact_match"] for domain, metrics in expected.items()}


def test_the_best_source_of_a_domain_is_the_one_with_the_best_value_and_on_the_mean_there_is_none(contents):
    *rows, mean = heldout(contents).rows
    for row in rows:
        best = max(("smol", "tiny-llama"), key=lambda model: right(model, row.domain).mean())
        assert row.best_source == best
        assert row.differences[BEST_SOURCE] == compare(result("unified"), result(best))[row.domain]["exact_match"]
    assert mean.best_source == ""
    assert BEST_SOURCE not in mean.differences


def share(domain: str, ours: str, start: np.ndarray, best: str) -> tuple[float, tuple[float, float]]:
    """The share of the way and its interval, by a slow bootstrap over examples."""
    values = np.array([right(ours, domain), start, right(best, domain)])
    rng, n = np.random.default_rng(5), values.shape[1]
    draws = np.array([values[:, rng.integers(n, size=n)].mean(1) for _ in range(4000)])
    f, s, b = values.mean(1)
    draws = draws[draws[:, 2] > draws[:, 1]]  # a draw without a gap has no share
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / (draws[:, 2] - draws[:, 1]), [0.025, 0.975])
    return (f - s) / (b - s), (low, high)


def test_the_gap_closed_is_that_of_a_slow_bootstrap_from_plain_fine_tuning(tmp_path):
    run = write_run(tmp_path / "run", SKILL | {"finetune": 0.3})
    found = heldout(read_run(run))
    assert (found.gap_start, list(found.gap_shares)) == ("finetune", ["unified", "pivot"])
    for row in found.rows[:-1]:
        for model, shares in found.gap_shares.items():
            value, ends = share(row.domain, model, right("finetune", row.domain, 0.3), row.best_source)
            assert shares[row.domain].value == pytest.approx(value)
            assert (shares[row.domain].low, shares[row.domain].high) == pytest.approx(ends, rel=0.25, abs=0.25)


def test_the_figure_and_the_table_have_one_zero(tmp_path):
    found = heldout(read_run(write_run(tmp_path / "run", SKILL | {"finetune": 0.3})))
    assert found.gap_shares["unified"] == {row.domain: row.gap_closed for row in found.rows if bounded(row.gap_closed)}


def test_the_gap_closed_is_the_way_from_plain_fine_tuning(tmp_path):
    run = write_run(tmp_path / "run")
    result("smol", 0.95).save(run / "eval" / "smol" / "heldout.json")
    for row in heldout(read_run(run)).rows[:-1]:
        smol = [item.exact_match for item in result("smol", 0.95).samples if item.domain == row.domain]
        f, s, b = (np.mean(v) for v in (right("unified", row.domain), right("finetune", row.domain), smol))
        assert row.gap_closed.value == pytest.approx((f - s) / (b - s))


def test_where_no_source_is_better_there_is_no_gap(tmp_path):
    found = heldout(read_run(write_run(tmp_path / "run", SKILL | {"pivot": 0.9})))
    assert {row.gap_closed for row in found.rows} == {None}
    assert found.gap_shares == {}


def test_regressions_are_domains_shown_to_be_worse_than_pivot_or_plain_fine_tuning(tmp_path):
    contents = read_run(write_run(tmp_path / "run", SKILL | {"unified": 0.45}))
    found = heldout(contents, "bits_per_byte").regressions
    worse = [d for d in DOMAINS if compare(result("unified", 0.45), result("finetune"))[d]["bits_per_byte"].low > 0]
    assert worse == list(DOMAINS)
    assert found == {"finetune": worse}  # better than the pivot, worse than the best source, which is no regression
    assert heldout(read_run(write_run(tmp_path / "good")), "bits_per_byte").regressions == {}


def test_without_plain_fine_tuning_the_gap_begins_at_the_pivot(tmp_path):
    run = write_run(tmp_path / "run")
    change(run, baseline=None)
    found = heldout(read_run(run))
    assert found.compared_with == ["pivot", BEST_SOURCE]
    assert {row.domain: row.gap_closed for row in found.rows} == found.gap_shares["unified"]
    assert (found.gap_start, list(found.gap_shares)) == ("pivot", ["unified"])


def test_without_sources_there_are_differences_and_no_gap(tmp_path):
    found = heldout(read_run(write_run(tmp_path / "run", {"unified": 0.8, "pivot": 0.2})))
    assert (found.compared_with, found.gap_shares) == (["pivot"], {})
    assert [list(row.differences) for row in found.rows] == [["pivot"]] * 4


def test_suites_and_metrics_with_nothing_to_compare_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    result("unified", suite="other").save(run / "eval" / "unified" / "other.json")
    for model in ("unified", "pivot"):
        one = result(model, suite="read")
        read = [item.model_copy(update={"exact_match": None, "answer": None}) for item in one.samples]
        Result.model_copy(one, update={"samples": read}).save(run / "eval" / model / "read.json")
    expected = {("heldout", "bits_per_byte"), ("heldout", "exact_match"), ("read", "bits_per_byte")}
    assert set(all_differences(read_run(run))) == expected
    change(run, result="never")
    assert all_differences(read_run(run)) == {}


def test_a_gap_that_cannot_be_told_from_none_closes_nothing():
    assert bounded(Interval(0.5, 0.4, 0.6, 9))
    assert not bounded(Interval(0.5, -math.inf, math.inf, 9))
    assert not bounded(None)


def test_a_cell_has_a_sign_a_spread_and_a_mark():
    assert difference_cell("exact_match", Interval(0.08, 0.05, 0.11, 9)) == ("+8.0", "±3.0", "★")
    assert difference_cell("exact_match", Interval(0.06, 0.05, 0.11, 9)) == ("+6.0", "(+5.0 to +11.0)", "★")
    assert difference_cell("bits_per_byte", Interval(0.08, 0.05, 0.11, 9)) == ("+0.080", "±0.030", "▼")
    assert difference_cell("exact_match", Interval(-0.01, -0.05, 0.03, 9)) == ("-1.0", "±4.0", "")
    assert difference_cell("exact_match", None) == ("–", "", "")
