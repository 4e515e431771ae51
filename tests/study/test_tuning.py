"""What an arm chooses among what it tried, and when that is an end of it."""

import pytest

from fusion.study.tuning import TriedSettings, tuning_table
from tests.helpers.measured_results import result, sample


def tried(values, *, metric="bits_per_byte", key="training.max_steps", trials=1) -> TriedSettings:
    """Settings of one key, by their value in the metric."""
    found = TriedSettings([{key: value} for value in values], metric, trials)
    for number, value in enumerate(values.values()):
        for _ in range(trials):
            found.add(number, result("m", [sample("a", nll=value, size=1, exact_match=value > 1)]))
    return found


def test_the_least_bits_are_best_and_the_most_right_answers():
    assert tried({5: 3.0, 20: 1.0, 80: 2.0}).best() == 1
    assert tried({5: 0.0, 20: 2.0, 80: 0.5}, metric="exact_match").best() == 1


def test_of_equal_settings_the_first_is_chosen():
    assert tried({5: 1.0, 20: 1.0}).best() == 0


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ({5: 3.0, 20: 1.0, 80: 2.0}, []),
        ({5: 3.0, 20: 2.0, 80: 1.0}, ["training.max_steps"]),
        ({80: 3.0, 20: 2.0, 5: 1.0}, ["training.max_steps"]),
        ({0.5: 1.0}, []),
        ({True: 1.0, False: 2.0}, []),
        ({"linear": 1.0, "cosine": 2.0}, []),
    ],
)
def test_an_end_of_the_numbers_that_were_tried_is_named(values, ends):
    assert tried(values).ends_chosen() == ends


def test_it_is_complete_with_the_last_trial():
    some = TriedSettings([{"a": 1}, {"a": 2}], "bits_per_byte", 2)
    for done in range(4):
        assert not some.complete
        some.add(done // 2, result("m", [sample("a")]))
    assert some.complete


def test_the_table_has_the_choice_in_bold_and_says_what_an_end_means():
    assert (
        tuning_table({"x": tried({5: 3.0, 20: 1.0, 80: 2.0})})
        .splitlines()[-1]
        .startswith("| x | max\\_steps 5: 4.328; **max\\_steps 20: 1.443**; max\\_steps 80: 2.885 |  |")
    )
    assert tuning_table({"x": tried({5: 3.0, 20: 1.0})}).splitlines()[-1].endswith("one beyond it may be better.")
