"""Which prompts a round has: counts whose answers are known, and an order in which all come before one comes again."""

import pytest

from fusion.data.example import Example
from fusion.stages.rounds.prompts import count_prompts, draw_prompts, gap_counts, proportional_counts

CASES = {
    "the example of the page": ({"a": 500, "b": 500}, 256, {"a": 0.6, "b": 0.1}, 0.25, {"a": 197, "b": 59}),
    "no floor": ({"a": 500, "b": 500}, 100, {"a": 0.3, "b": 0.1}, 0.0, {"a": 75, "b": 25}),
    "equal gaps count alike, whatever the sizes": ({"a": 900, "b": 100}, 100, {"a": 0.2, "b": 0.2}, 0.0, {"a": 50, "b": 50}),
    "all of it is floor": ({"a": 900, "b": 100}, 100, {"a": 0.0, "b": 0.9}, 1.0, {"a": 90, "b": 10}),
    "a pivot that is better is no gap": ({"a": 50, "b": 50}, 40, {"a": -0.5, "b": 0.1}, 0.5, {"a": 10, "b": 30}),
    "no gap anywhere": ({"a": 90, "b": 30}, 40, {"a": -0.5, "b": 0.0}, 0.25, {"a": 30, "b": 10}),
    "more than there are": ({"a": 10, "b": 50}, 40, {"a": 0.9, "b": 0.1}, 0.0, {"a": 10, "b": 30}),
    "the rest by gap too": ({"a": 5, "b": 50, "c": 50}, 45, {"a": 0.9, "b": 0.3, "c": 0.1}, 0.0, {"a": 5, "b": 30, "c": 10}),
    "the rest where nothing is left to gain": ({"a": 5, "b": 50}, 20, {"a": 0.9, "b": 0.0}, 0.0, {"a": 5, "b": 15}),
    "all prompts": ({"a": 3, "b": 4}, 100, {"a": 0.9, "b": 0.1}, 0.25, {"a": 3, "b": 4}),
    "the largest remainder": ({"a": 9, "b": 9, "c": 9}, 10, {"a": 0.1, "b": 0.1, "c": 0.1}, 0.0, {"a": 4, "b": 3, "c": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_prompts_are_divided_by_gap_above_the_floor(name):
    sizes, count, gaps, floor, expected = CASES[name]
    assert gap_counts(sizes, count, gaps, floor) == expected
    assert proportional_counts(sizes, count) == gap_counts(sizes, count, gaps, 1.0) or name == "the largest remainder"


def test_no_prompt_comes_again_before_all_have_whatever_a_round_takes():
    examples = [Example(({"role": "user", "content": f"{n}"},), "", f"d{n % 2}") for n in range(12)]
    assert count_prompts([*examples, *examples]) == {"d0": 6, "d1": 6}
    counts = [{"d0": 1, "d1": 4}, {"d0": 3, "d1": 2}, {"d0": 2, "d1": 1}]
    drawn = [draw_prompts(examples, counts[:number], seed=3) for number in (1, 2, 3)]
    assert [{d: sum(n % 2 == i for n in of) for i, d in enumerate(("d0", "d1"))} for of in drawn] == counts
    for parity in (0, 1):
        in_turn = [n for of in drawn for n in of if n % 2 == parity]
        assert len(set(in_turn[:6])) == 6
    assert draw_prompts(examples, counts, seed=4) != drawn[2]
