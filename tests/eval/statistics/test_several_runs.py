"""What several trainings say together, one a seed; and how far confidence is off."""

import math

import numpy as np
import pytest

from fusion_eval.results import Result, Sample
from fusion_eval.statistics.comparison import compare, summarise
from tests.helpers.measured_results import result, sample, some_samples


def runs(*seeds: int, shift: float = 0.0) -> list[Result]:
    return [result("fused", some_samples(seed, 200, shift=shift)) for seed in seeds]


def test_several_runs_count_by_their_mean():
    together = summarise(runs(1, 2, 3))["sums"]["bits_per_byte"]
    assert together.value == pytest.approx(
        np.mean([summarise(run)["sums"]["bits_per_byte"].value for run in runs(1, 2, 3)])
    )
    assert together.n == 200


def test_the_same_run_thrice_is_as_sure_as_once():
    thrice, once = (summarise(some, resamples=20_000)["sums"]["bits_per_byte"] for some in (runs(1, 1, 1), runs(1)))
    assert thrice.value == pytest.approx(once.value)
    assert [thrice.low, thrice.high] == pytest.approx([once.low, once.high], rel=0.02)


def test_runs_that_differ_as_a_whole_widen_the_interval_by_the_t_interval_over_them():
    """Three runs whose samples differ by a constant: of t with 2 degrees of freedom, 4.303 standard errors are 97.5%."""
    steps = [runs(1, shift=shift)[0] for shift in (-3.0, 0.0, 3.0)]
    one, three = (summarise(some)["sums"]["bits_per_byte"] for some in (steps[1], steps))
    over_runs = 4.303 * (3.0 / math.log(2)) / math.sqrt(3)
    assert three.half == pytest.approx(math.hypot(over_runs, one.half), rel=1e-3)


def test_runs_that_went_well_in_all_domains_keep_their_luck_in_the_mean():
    shifted = [
        result("fused", some_samples(1, 200, "a", shift) + some_samples(2, 200, "b", shift))
        for shift in (-3.0, 0.0, 3.0)
    ]
    found = summarise(shifted)
    assert found["mean"]["bits_per_byte"].half == pytest.approx(found["a"]["bits_per_byte"].half, rel=1e-2)


def test_a_difference_pairs_the_runs_of_a_seed():
    better = [
        run.model_copy(update={"samples": [i.model_copy(update={"nll": i.nll - 0.1 * i.bytes}) for i in run.samples]})
        for run in runs(1, 2, 3)
    ]
    found = compare(better, runs(1, 2, 3))["sums"]["bits_per_byte"]
    assert found.value == pytest.approx(-0.1 / math.log(2))
    assert found.half < 1e-12  # each seed differs from its own baseline by the same


def test_one_baseline_meets_every_run():
    found = compare(runs(1, 2, 3), runs(4))["sums"]["bits_per_byte"]
    apart = [compare(run, runs(4))["sums"]["bits_per_byte"].value for run in runs(1, 2, 3)]
    assert found.value == pytest.approx(np.mean(apart))


def test_two_runs_against_three_are_refused():
    with pytest.raises(ValueError, match="fused has 2 runs, fused has 3; measure both on the same seeds"):
        compare(runs(1, 2), runs(1, 2, 3))


def calibrated(id: str, *tokens: tuple[float, bool]) -> Sample:
    """A sample whose tokens were predicted with a confidence, rightly or not."""
    off = [0.0] * 10
    for confidence, right in tokens:
        off[min(9, int(confidence * 10))] += confidence - right
    return sample(id).model_copy(update={"calibration": [*off, float(len(tokens))]})


def test_the_calibration_error_is_the_mean_over_tokens_of_how_far_each_tenth_of_confidence_is_off():
    samples = [calibrated("a", (0.95, True), (0.92, False), (0.31, False)), calibrated("b", (0.35, True), (0.91, True))]
    found = summarise(result("m", samples))["sums"]["calibration_error"].value
    nineties, thirties = abs((0.95 + 0.92 + 0.91) - 2), abs((0.31 + 0.35) - 1)
    assert found == pytest.approx((nineties + thirties) / 5)


def test_errors_of_two_items_in_one_bin_cancel_and_in_two_bins_do_not():
    same = [calibrated("a", (0.95, False)), calibrated("b", *[(0.95, True)] * 19)]
    other = [calibrated("a", (0.05, True)), calibrated("b", (0.95, False))]
    assert summarise(result("m", same))["sums"]["calibration_error"].value == pytest.approx(0.0, abs=1e-9)
    assert summarise(result("m", other))["sums"]["calibration_error"].value == pytest.approx(0.95)


def test_a_difference_in_calibration_is_paired():
    sure = [calibrated(f"{i}", (0.99, i % 2 == 0)) for i in range(40)]
    even = [calibrated(f"{i}", (0.55, i % 2 == 0)) for i in range(40)]
    found = compare(result("a", sure), result("b", even))["sums"]["calibration_error"]
    assert found.value == pytest.approx(0.49 - 0.05)
    assert found.low > 0.2


def graded(name, key):
    return result(name, some_samples(1, 20)).model_copy(update={"provenance": {"key": key}})


TEXT, NUMBER = {"compare": {"sums": "text"}}, {"compare": {"sums": "number"}}


@pytest.mark.parametrize("first", [TEXT, {"exact_match": ["sums"]}])
def test_results_whose_answers_were_compared_in_two_ways_are_refused_by_name(first):
    with pytest.raises(
        ValueError, match="Answers to sums were compared by 'text' in one and by 'number' in two.*same `compare`"
    ):
        compare(graded("one", first), graded("two", NUMBER))
    with pytest.raises(ValueError, match="compared by 'number' in two"):
        summarise([graded("one", first), graded("two", NUMBER)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT, TEXT),
        (NUMBER, NUMBER),
        (NUMBER, {}),
        (TEXT, {"exact_match": ["sums"]}),
        (NUMBER, {"compare": {"maths": "text"}}),
    ],
)
def test_results_graded_alike_or_that_do_not_say_how_are_compared(one, other):
    assert compare(graded("one", one), graded("two", other))["sums"]["bits_per_byte"].value == 0
