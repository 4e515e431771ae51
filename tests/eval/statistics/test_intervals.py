"""Intervals in closed form against scipy and published values; how often they cover a known truth; what is never certain."""

import math

import numpy as np
import pytest
import scipy.stats

from fusion_eval.statistics.bootstrap import bootstrap
from fusion_eval.statistics.comparison import compare, summarise
from fusion_eval.statistics.intervals import (
    Interval,
    add_arms,
    effective_number,
    paired_share_difference,
    t_half_width,
    wilson,
)
from fusion_eval.statistics.metrics import METRICS
from tests.helpers.measured_results import result, sample


def answered(right: int, n: int, domain: str = "sums"):
    return [sample(f"{domain}-{i:04}", exact_match=i < right, domain=domain) for i in range(n)]


def of_shares(first: list[float], second: list[float]) -> tuple[float, float]:
    return paired_share_difference(np.array(first), np.array(second), np.ones(len(first)))


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (100, 100), (99, 100), (11, 200), (7, 13)])
def test_the_interval_of_right_answers_is_wilsons_as_scipy_has_it(right, n):
    found = summarise(result("m", answered(right, n)))["sums"]["exact_match"]
    theirs = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    assert [found.low, found.high] == pytest.approx([theirs.low, theirs.high], abs=1e-12)
    assert (found.value, found.n) == (right / n, n)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.97])
def test_wilsons_interval_covers_a_share_about_95_times_in_100_over_sample_sizes(share):
    """In exact probabilities, not by drawing: the mean over 40 sample sizes."""
    covered = []
    for n in range(20, 60):
        arms = [wilson(k / n, n) for k in range(n + 1)]
        inside = [k / n - a <= share <= k / n + b for k, (a, b) in enumerate(arms)]
        covered.append(scipy.stats.binom.pmf(np.arange(n + 1), n, share)[np.array(inside)].sum())
    assert 0.935 < np.mean(covered) < 0.97


def test_nothing_of_ten_and_all_of_a_hundred_are_not_certain():
    none, all_ = (summarise(result("m", answered(*counts)))["mean"]["exact_match"] for counts in ((0, 10), (100, 100)))
    show = METRICS["exact_match"].show_spread
    assert show(none) == "(0.0 to 27.8)"
    assert show(all_) == "(96.3 to 100.0)"


def test_the_mean_over_domains_without_a_right_answer_is_not_certain_and_surer_than_each():
    found = summarise(result("m", answered(0, 50, "a") + answered(0, 50, "b")))
    assert found["mean"]["exact_match"].low == 0
    assert found["mean"]["exact_match"].high == pytest.approx(found["a"]["exact_match"].high / math.sqrt(2))


def test_weights_make_a_share_less_sure_as_if_there_were_fewer_answers():
    weights = np.array([1.0] * 10 + [3.0] * 10)
    assert effective_number(weights) == pytest.approx(16)
    assert effective_number(np.full(7, 0.3)) == pytest.approx(7)
    scored = [
        sample(f"{i:02}").model_copy(update={"score": float(i % 2), "weight": w})
        for i, w in enumerate(weights.tolist())
    ]
    found = summarise(result("m", scored))["mean"]["accuracy"]
    assert found.high - found.value == pytest.approx(wilson(0.5, 16)[1])


@pytest.mark.parametrize(
    ("both", "first", "second", "neither", "low", "high"),
    [(36, 12, 2, 0, 0.0569, 0.3404), (0, 0, 0, 50, -0.0713, 0.0713), (0, 54, 0, 0, 0.9061, 1.0)],
)
def test_a_paired_difference_of_shares_is_newcombes(both, first, second, neither, low, high):
    """The first is the example of the paper (method 10); the others follow from the ends of two Wilson intervals."""
    a = [1.0] * (both + first) + [0.0] * (second + neither)
    b = [1.0] * both + [0.0] * first + [1.0] * second + [0.0] * neither
    below, above = of_shares(a, b)
    value = np.mean(a) - np.mean(b)
    assert [value - below, value + above] == pytest.approx([low, high], abs=6e-5)


@pytest.mark.parametrize(("ours", "theirs", "n"), [(0, 0, 10), (100, 100, 100), (50, 50, 100), (0, 1, 40)])
def test_two_models_with_equal_answers_are_not_certain_to_be_equal(ours, theirs, n):
    found = compare(result("a", answered(ours, n)), result("b", answered(theirs, n)))["mean"]["exact_match"]
    assert found.low < 0 < found.high


def test_all_against_nothing_is_a_difference_but_not_a_certain_one():
    found = compare(result("a", answered(30, 30)), result("b", answered(0, 30)))["mean"]["exact_match"]
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.8 < found.low < 0.9


def test_four_answers_more_of_a_hundred_show_nothing_and_twelve_do():
    """McNemar's exact test gives p = 0.125 for 4 changes in one direction; a bootstrap of them never draws 0."""
    few, many = (
        compare(result("a", answered(40 + more, 100)), result("b", answered(40, 100)))["sums"]["exact_match"]
        for more in (4, 12)
    )
    assert not few.excludes(0)
    assert many.excludes(0)


def test_the_interval_over_seeds_is_the_t_interval_of_scipy():
    values = np.array([0.31, 0.36, 0.28])
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert t_half_width(values) == pytest.approx((theirs.high - theirs.low) / 2)


def over_seeds(rng, seeds: int, *, of_seed: float, of_example: float, n: int = 60) -> np.ndarray:
    """Columns [seeds, 1, 2, n] of scores around 0 with an effect of the seed, one of the example, and noise."""
    scores = (
        of_seed * rng.normal(size=(seeds, 1)) + of_example * rng.normal(size=(1, n)) + 0.3 * rng.normal(size=(seeds, n))
    )
    return np.stack([scores, np.ones_like(scores)], 1)[:, None]


def covered(seeds: int, trials: int, **effects: float) -> float:
    """Share of trials whose interval over seeds and examples holds the true mean, 0."""
    rng = np.random.default_rng(seeds)
    found = [bootstrap(over_seeds(rng, seeds, **effects), trial, 200).interval() for trial in range(trials)]
    return float(np.mean([not each.excludes(0) for each in found]))


def test_the_interval_over_three_seeds_covers_the_truth_about_95_times_in_100():
    assert 0.91 < covered(3, 200, of_seed=1.0, of_example=0.1) < 0.985


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("of_seed", "of_example"), [(1.0, 0.1), (0.13, 1.0)])
def test_intervals_over_few_seeds_cover_the_truth_about_95_times_in_100(seeds, of_seed, of_example):
    assert 0.925 < covered(seeds, 1000, of_seed=of_seed, of_example=of_example) < 0.985


def test_arms_of_independent_estimates_add_like_standard_errors():
    assert add_arms([(3.0, 1.0), (4.0, 0.0)]) == (5.0, 1.0)


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        (Interval(0.052, 0.047, 0.073, 9), "(4.7 to 7.3)"),
        (Interval(0.5, 0.404, 0.596, 100), "±9.6"),
        (Interval(0.44, 0.373, 0.509, 200), "±6.8"),
        (Interval(0.5, -math.inf, math.inf, 1), "±∞"),
        (Interval(0.0, 0.0, 0.0, 9), "±0.0"),
    ],
)
def test_an_interval_is_written_with_one_arm_only_where_both_are_alike(interval, shown):
    assert METRICS["calibration_error"].show_spread(interval) == shown


def test_both_ends_of_a_difference_have_a_sign():
    found = METRICS["exact_match"].show_spread(Interval(-0.01, -0.06, 0.01, 40), signed=True)
    assert found == "(-6.0 to +1.0)"
