"""Intervals against scipy's bootstrap, closed forms, and how often they cover a known truth; invariances; errors."""

import math

import numpy as np
import pytest
import scipy.stats

from fusion_eval.results import Sample
from fusion_eval.statistics.bootstrap import resampled_sums
from fusion_eval.statistics.comparison import (
    by_subset,
    compare,
    mean_interval,
    paired_interval,
    ratio_interval,
    summarise,
)
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import METRICS
from tests.helpers.measured_results import result, sample, some_samples


@pytest.mark.parametrize("n", [7, 40, 301])
def test_the_interval_of_a_mean_is_that_of_scipy(n):
    values = np.random.default_rng(n).gamma(1.5, size=n)
    ours = mean_interval(values, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    )
    assert ours.value == pytest.approx(values.mean(), rel=1e-12)
    # the ends of 20,000 resamples are known to about 0.02 standard errors
    assert [ours.low, ours.high] == pytest.approx(list(theirs.confidence_interval), abs=0.08 * theirs.standard_error)


def test_the_interval_of_a_ratio_is_that_of_scipy_with_both_entries_of_an_example_drawn_together():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 60).astype(float)
    nats = lengths * rng.gamma(2.0, size=60)
    ours = ratio_interval(nats, lengths, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (nats, lengths), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, method="percentile",
        n_resamples=20_000, rng=np.random.default_rng(1),
    )  # fmt: skip
    assert ours.value == nats.sum() / lengths.sum()
    assert [ours.low, ours.high] == pytest.approx(list(theirs.confidence_interval), abs=0.08 * theirs.standard_error)


def test_the_interval_of_a_large_sample_is_the_mean_and_1_96_standard_errors():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=4000)
    found, error = mean_interval(values, resamples=20_000), values.std() / math.sqrt(4000)
    assert [found.low, found.high] == pytest.approx(
        [values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.1 * error
    )


def test_intervals_cover_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(5)
    runs = [mean_interval(rng.exponential(2.0, size=150), seed=i, resamples=400) for i in range(600)]
    covered = np.mean([not run.excludes(2.0) for run in runs])
    assert 0.92 < covered < 0.97  # a little under 0.95: skewed values, 150 of them, 600 trials


def test_the_mean_over_domains_covers_the_truth_about_95_times_in_100():
    rng, covered = np.random.default_rng(6), 0
    for trial in range(300):
        samples = [
            sample(f"{domain}{i}", nll=rng.normal(truth, 0.5), size=1, domain=domain)
            for domain, truth, n in [("a", 1.0, 80), ("b", 4.0, 200)]
            for i in range(n)
        ]
        found = summarise(result("m", samples), seed=trial, resamples=400)["mean"]["bits_per_byte"]
        covered += not found.excludes(2.5 / math.log(2))
    assert 0.915 < covered / 300 < 0.98


def test_a_paired_difference_of_equal_models_excludes_zero_about_5_times_in_100():
    rng, excluded = np.random.default_rng(7), 0
    for trial in range(400):
        hard = rng.gamma(3.0, size=80)
        a, b = ([sample(f"{i:02}", nll=hard[i] + 0.1 * rng.normal(), size=1) for i in range(80)] for _ in "ab")
        excluded += paired_interval(a, b, "bits_per_byte", seed=trial, resamples=400).excludes(0)
    assert 0.02 < excluded / 400 < 0.09


def test_memory_is_bounded_without_changing_the_numbers(monkeypatch):
    values = np.random.default_rng(8).random(50)
    whole = mean_interval(values)
    monkeypatch.setattr("fusion_eval.statistics.bootstrap._INDICES_IN_MEMORY", 1000)
    found = mean_interval(values)
    assert (found.low, found.value, found.high) == pytest.approx((whole.low, whole.value, whole.high), rel=1e-12)


def test_bits_per_byte_is_all_nats_over_all_bytes_in_bits():
    found = summarise(result("m", [sample("a", nll=3.0, size=1), sample("b", nll=5.0, size=9)]))
    assert found["sums"]["bits_per_byte"].value == pytest.approx(8 / math.log(2) / 10)


def test_exact_match_counts_only_items_that_were_answered():
    samples = [
        sample("a", exact_match=True),
        sample("b", exact_match=False),
        sample("c"),
        sample("d", exact_match=True),
    ]
    found = summarise(result("m", samples))["sums"]
    assert (found["exact_match"].value, found["exact_match"].n) == (pytest.approx(2 / 3), 3)
    assert found["bits_per_byte"].n == 4


def test_a_metric_nobody_knows_is_left_out():
    assert set(summarise(result("m", [sample("a"), sample("b")]))["mean"]) == {"bits_per_byte"}


def test_the_mean_gives_every_domain_the_same_share_whatever_its_size():
    samples = [sample(f"a{i}", nll=1.0, size=1, domain="a") for i in range(90)]
    samples += [sample(f"b{i}", nll=3.0, size=1, domain="b") for i in range(10)]
    found = summarise(result("m", samples))
    assert found["mean"]["bits_per_byte"].value == pytest.approx(2.0 / math.log(2))
    assert found["mean"]["bits_per_byte"].n == 100
    assert list(found) == ["a", "b", "mean"]


def test_the_mean_of_independent_domains_has_the_standard_error_of_a_stratified_sample():
    samples = some_samples(1, 400, "a") + some_samples(1, 400, "b")  # alike, so that drawing both alike would show
    found = summarise(result("m", samples), resamples=20_000)
    widths = [found[name]["bits_per_byte"].half for name in ("a", "b")]
    assert found["mean"]["bits_per_byte"].half == pytest.approx(math.hypot(*widths) / 2, rel=0.04)


def test_the_mean_over_one_domain_is_that_domain():
    found = summarise(result("m", some_samples(1)))
    assert found["mean"] == found["sums"]


def test_neither_the_order_of_items_nor_another_domain_changes_a_domain():
    samples = some_samples(1) + some_samples(2, domain="dates")
    alone, mixed = summarise(result("m", some_samples(1))), summarise(result("m", samples[::-1]))
    assert alone["sums"] == mixed["sums"]
    assert mixed == summarise(result("m", samples))


def test_a_seed_gives_the_same_interval_again_and_another_seed_another():
    values = np.random.default_rng(0).random(40)
    assert mean_interval(values, seed=0) == mean_interval(values, seed=0)
    assert mean_interval(values, seed=0) != mean_interval(values, seed=1)
    assert mean_interval(values, seed=0).value == mean_interval(values, seed=1).value


def test_one_example_excludes_nothing():
    found = mean_interval([0.7])
    assert found == Interval(0.7, -math.inf, math.inf, 1)
    assert not found.excludes(1e9)
    samples = [sample("a"), *some_samples(1, domain="dates")]
    assert summarise(result("m", samples))["mean"]["bits_per_byte"].half == math.inf


def test_the_mean_of_values_that_agree_is_known_exactly():
    assert mean_interval([0.25] * 9) == Interval(0.25, 0.25, 0.25, 9)


def test_a_paired_difference_is_narrower_than_two_intervals_and_finds_a_small_gain():
    base = [sample(f"{i:02}", nll=float(i + 1), size=10) for i in range(60)]
    better = [sample(f"{i:02}", nll=i + 0.9 - 0.05 * (i % 3), size=10) for i in range(60)]
    difference = paired_interval(better, base, "bits_per_byte")
    assert difference.value == pytest.approx(-0.15 / 10 / math.log(2))
    assert difference.excludes(0)
    assert difference.high < 0
    assert difference.half < 0.01 * summarise(result("m", base))["mean"]["bits_per_byte"].half


def test_items_are_paired_by_id_and_not_by_place():
    a, b = some_samples(1), some_samples(2)
    assert paired_interval(a, b[::-1], "exact_match") == paired_interval(a, b, "exact_match")


def test_comparing_is_the_difference_of_summaries_and_turns_its_sign_with_the_sides():
    a = result("a", some_samples(1) + some_samples(3, domain="dates"))
    b = result("b", some_samples(2) + some_samples(4, domain="dates"))
    ours, theirs, there, back = summarise(a), summarise(b), compare(a, b), compare(b, a)
    assert there.keys() == ours.keys()
    for domain in there:
        assert set(there[domain]) == {"bits_per_byte", "exact_match"}
        for metric, found in there[domain].items():
            assert found.value == pytest.approx(ours[domain][metric].value - theirs[domain][metric].value)
            assert (found.low, found.high) == pytest.approx((-back[domain][metric].high, -back[domain][metric].low))


def test_a_model_compared_with_itself_differs_by_nothing():
    a = result("a", some_samples(1))
    assert compare(a, a)["mean"]["bits_per_byte"] == Interval(0.0, 0.0, 0.0, 30)
    assert compare(a, a)["mean"]["exact_match"].value == 0.0


@pytest.mark.parametrize("n", [2, 3, 127, 1001])
def test_equal_columns_differ_by_exactly_nothing_in_every_draw(n):
    parts = np.random.default_rng(n).gamma(2.0, size=(7, n))
    drawn = resampled_sums(np.stack([parts, parts.copy()]), 3, 500)
    assert np.array_equal(drawn[:, 0], drawn[:, 1])
    chosen = np.random.default_rng([3, 0]).integers(n, size=(500, n))
    assert np.allclose(drawn[:, 0], parts[:, chosen].sum(-1).T, rtol=1e-12, atol=0)


def test_a_metric_that_only_one_model_has_is_not_compared():
    asked, silent = ([sample(f"{i}", exact_match=exact) for i in range(4)] for exact in (True, None))
    assert set(compare(result("a", asked), result("b", silent))["mean"]) == {"bits_per_byte"}


def test_different_items_are_refused_with_their_counts():
    a, b = result("ours", some_samples(1, 30)), result("theirs", some_samples(1, 28))
    with pytest.raises(ValueError, match=r"ours against theirs on heldout: .*30 against 28, 2 only in the first and 0"):
        compare(a, b)


def test_items_answered_by_only_one_model_are_refused():
    a = [sample("1", exact_match=True), sample("2", exact_match=True)]
    b = [sample("1", exact_match=True), sample("2")]
    with pytest.raises(ValueError, match="samples with exact_match differ: 2 against 1"):
        compare(result("a", a), result("b", b))


@pytest.mark.parametrize("change", [{"bytes": 5}, {"domain": "dates"}, {"prompt": "2 + 2"}, {"target": "4"}])
def test_one_id_for_two_texts_is_refused(change):
    a = [sample("1"), sample("2")]
    with pytest.raises(ValueError, match="1 of 2 ids stand for different texts, the first is '2'"):
        paired_interval(a, [a[0], a[1].model_copy(update=change)], "bits_per_byte")


def test_different_suites_are_refused():
    with pytest.raises(ValueError, match="a was evaluated on heldout, b on other"):
        compare(result("a", [sample("1")]), result("b", [sample("1")], suite="other"))


@pytest.mark.parametrize(("values", "why"), [([], "no examples"), ([1.0, math.nan], "finite"), ([math.inf], "finite")])
def test_values_without_a_mean_are_refused(values, why):
    with pytest.raises(ValueError, match=why):
        mean_interval(values)


def test_a_denominator_of_zero_is_refused():
    with pytest.raises(ValueError, match="denominator above 0"):
        ratio_interval([1.0, 2.0], [1.0, 0.0])


def test_values_are_shown_in_the_unit_of_the_label():
    assert METRICS["exact_match"].show(0.875) == "87.5"
    assert METRICS["bits_per_byte"].show(0.41239) == "0.412"
    assert METRICS["bits_per_byte"].show(math.inf) == "∞"
    assert METRICS["bits_per_byte"].better(-0.1)
    assert METRICS["exact_match"].better(0.1)


def scored(subset, *scores, weight=1.0):
    return [
        Sample(
            id=f"{subset}-{i}", domain="mmlu", subset=subset, weight=weight, bytes=1, score=s, prompt="?", target="A"
        )
        for i, s in enumerate(scores)
    ]


def test_weights_turn_the_mean_over_questions_into_the_mean_over_subsets():
    plain = result("m", scored("anatomy", 1, 1, 1, 0) + scored("law", 0, 0))
    level = result("m", scored("anatomy", 1, 1, 1, 0, weight=0.75) + scored("law", 0, 0, weight=1.5))
    assert summarise(plain)["mmlu"]["accuracy"].value == 3 / 6
    assert summarise(level)["mmlu"]["accuracy"].value == (3 / 4 + 0) / 2


def test_subsets_become_domains_and_their_weights_take_no_part():
    parts = by_subset(result("m", scored("anatomy", 1, 0, weight=0.5) + scored("law", 1, weight=2.0)))
    assert parts.keys() == {"mmlu"}
    assert parts["mmlu"].suite == "heldout: mmlu"
    found = summarise(parts["mmlu"])
    assert {name: found[name]["accuracy"].value for name in found} == {"anatomy": 0.5, "law": 1.0, "mean": 0.75}


def test_a_domain_without_subsets_has_no_table_of_them():
    assert by_subset(result("m", some_samples(1))) == {}


def test_an_unknown_likelihood_takes_no_part_in_bits_per_byte():
    assert summarise(result("m", scored("law", 1, 0)))["mean"].keys() == {"accuracy"}
