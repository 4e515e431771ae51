"""The share of a gap against values computed by hand and against a slow bootstrap, and what it refuses to say."""

import numpy as np
import pytest

from fusion_eval.gap import best_of, gap_closed
from fusion_eval.results import Item, Result
from fusion_eval.statistics import compare


def measured(model: str, right: dict[str, list[int]], nats: float = 1.0) -> Result:
    items = [
        Item(
            id=f"{d}{i:03}", domain=d, bytes=1 + i % 3, nats=nats * (1 + i % 5), exact=bool(r), prompt="", expected="1"
        )
        for d, each in right.items()
        for i, r in enumerate(each)
    ]
    return Result(model=model, suite="s", path=model, made={}, items=items)


def share(n: int, right: int) -> list[int]:
    return [1] * right + [0] * (n - right)


START = measured("pivot", {"a": share(50, 10), "b": share(40, 8)})
GOAL = measured("best", {"a": share(50, 50), "b": share(40, 32)})


def test_the_share_is_the_way_gone_over_the_whole_way():
    ours = measured("fused", {"a": share(50, 30), "b": share(40, 4)})
    found = gap_closed(ours, START, GOAL, "exact_match")
    assert found["a"].value == pytest.approx((30 - 10) / (50 - 10))
    assert found["b"].value == pytest.approx((4 - 8) / (32 - 8))
    means = [(30 / 50 + 4 / 40) / 2, (10 / 50 + 8 / 40) / 2, (50 / 50 + 32 / 40) / 2]
    assert found["mean"].value == pytest.approx((means[0] - means[1]) / (means[2] - means[1]))
    assert (found["a"].n, found["b"].n, found["mean"].n) == (50, 40, 90)
    assert found["a"].low < found["a"].value < found["a"].high


def test_the_start_has_closed_nothing_and_the_goal_everything():
    for one, value in ((START, 0.0), (GOAL, 1.0)):
        for interval in gap_closed(one, START, GOAL, "exact_match").values():
            assert (interval.value, interval.low, interval.high) == pytest.approx((value, value, value))


def test_the_interval_is_that_of_a_slow_bootstrap_over_examples():
    rng = np.random.default_rng(3)
    right = {"a": rng.random(60) < 0.5}
    ours = measured("fused", {"a": right["a"].astype(int).tolist()})
    start, goal = measured("p", {"a": share(60, 15)}), measured("b", {"a": share(60, 55)})
    values = np.array([[item.exact for item in one.items] for one in (ours, start, goal)], dtype=float)
    draws = []
    for _ in range(4000):
        f, p, b = values[:, rng.integers(60, size=60)].mean(1)
        draws.append((f - p) / (b - p))
    found = gap_closed(ours, start, goal, "exact_match", resamples=4000)["a"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.03)


def test_lower_is_better_where_the_metric_says_so():
    start, goal, ours = (measured(m, {"a": share(50, 9)}, nats) for m, nats in (("p", 2.0), ("b", 1.0), ("f", 1.25)))
    assert gap_closed(ours, start, goal, "bits_per_byte")["a"].value == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("goal", "why"), [(share(50, 10), "no better"), (share(50, 2), "worse"), (share(50, 11), "not shown to be")]
)
def test_where_the_goal_is_not_shown_to_be_better_there_is_no_share(goal, why):
    best = measured("best", {"a": goal, "b": share(40, 32)})
    found = gap_closed(GOAL, START, best, "exact_match")
    assert "a" not in found, why
    assert "b" in found


def test_the_best_of_several_takes_each_domain_from_whoever_is_best_there():
    one, two = (
        measured("one", {"a": share(50, 9), "b": share(40, 20)}),
        measured("two", {"a": share(50, 30), "b": share(40, 1)}),
    )
    best = best_of([one, two], "exact_match", "best source")
    assert best.made == {"a": "two", "b": "one"}
    assert {item.domain: item for item in best.items} == {"a": two.items[49], "b": one.items[-1]}
    assert compare(best, one)["a"]["exact_match"].value == pytest.approx(0.42)


def test_domains_without_the_metric_take_no_part_and_do_not_stand_in_the_way():
    def without(one: Result, domain: str) -> Result:
        asked = [item if item.domain != domain else item.model_copy(update={"exact": None}) for item in one.items]
        return one.model_copy(update={"items": asked})

    ours, start, goal = (
        without(one, "b") for one in (measured("f", {"a": share(50, 30), "b": share(40, 4)}), START, GOAL)
    )
    best = best_of([goal, start], "exact_match", "best source")
    assert best.made == {"a": "best"}
    assert {item.id for item in best.items} == {item.id for item in GOAL.items}
    found = gap_closed(ours, start, best, "exact_match")
    assert {domain: interval.value for domain, interval in found.items()} == pytest.approx({"a": 0.5, "mean": 0.5})
    assert found["mean"].n == 50


def test_the_best_has_the_fewest_bits():
    one, two = measured("one", {"a": [1]}, 1.0), measured("two", {"a": [1]}, 0.5)
    assert best_of([one, two], "bits_per_byte", "best").made == {"a": "two"}


def test_nobody_is_best_where_nobody_was_measured():
    asked = START.model_copy(update={"items": [item.model_copy(update={"exact": None}) for item in START.items]})
    assert best_of([asked], "exact_match", "best") is None
    assert best_of([], "exact_match", "best") is None


def test_models_measured_on_different_items_are_refused_by_name():
    with pytest.raises(ValueError, match="best against pivot on s: the items differ: 90 against 50"):
        best_of([measured("pivot", {"a": share(50, 9)}), GOAL], "exact_match", "x")
    with pytest.raises(ValueError, match="fused against pivot|the items differ"):
        gap_closed(measured("fused", {"a": share(50, 9), "b": share(39, 9)}), START, GOAL, "exact_match")
