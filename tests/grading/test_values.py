"""Values of TheoremQA at the edges of its tolerance, and complex numbers, on truths of which the right answers are known."""

import pytest

from fusion.grading.answers import extract_value, same_value


def is_right(said, truth, kind="float"):
    return same_value(extract_value(f"The answer is {said}"), truth, kind)


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        ("0", "3e-36"),
        ("1e-20", "4.7e-34"),
        ("5e-10", "1e-24"),
        ("0", "-1e-12"),
        ("4.2e-34", "4.7e-34"),
        ("0.001", "0.0"),
    ],
)
def test_a_tiny_truth_is_no_gift(said, truth):
    assert not is_right(said, truth)
    assert not is_right(f"[{said}, 2]", f"[{truth}, 2.0]", "list of float")


@pytest.mark.parametrize(
    ("said", "truth"),
    [("4.6e-34", "4.7e-34"), (r"3 \times 10^{-36}", "3e-36"), ("0", "0.0"), ("0.0", "0"), (r"\sin(\pi)", "0.0")],
)
def test_a_tiny_value_within_four_per_cent_and_nothing_for_nothing_are_right(said, truth):
    assert is_right(said, truth)


def test_whole_numbers_are_exact_however_large():
    assert is_right("10000000000", "10000000000", "integer")
    assert is_right("1e10", "10000000000", "integer")
    assert not is_right("10000000001", "10000000000", "integer")
    assert not is_right("[1, 10000000001]", "[1, 10000000000]", "list of integer")


@pytest.mark.parametrize(
    "said", ["2i", "2 i", "2j", "2 + 3i", "2 - i", r"2\cdot i", r"z = 2e^{i\pi}", r"2\pi i", "2*i", "2/i"]
)
def test_the_real_part_of_a_complex_number_is_not_its_value(said):
    assert not is_right(said, "2.0")


@pytest.mark.parametrize(
    "said", ["2", "2 (i.e. two)", "2, i.e. two", "i = 2", "x_i = 2", r"\sum_{i=1}^{2} 1 = 2", "2 + 0i", "2 in", "2 J"]
)
def test_a_letter_i_beside_a_real_number_leaves_its_value(said):
    assert is_right(said, "2.0")
