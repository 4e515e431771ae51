"""Answers to DROP that name more than is asked for, and numbers in every form, against the verdict of a reader."""

import time

import pytest

from fusion.grading.answers import extract_span, same_spans


def is_right(text, *truth):
    return same_spans(extract_span(text), [truth])


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        ("Tom, Ann, Bob, Cat, Dan", "Dan"),
        ("Tom, Ann", "Tom"),
        ("Tom, Ann", "Ann"),
        ("Tom/Ann", "Tom"),
        ("Tom / Ann", "Ann"),
        ("Tom; Ann", "Tom"),
        ("1. Tom 2. Ann", "Tom"),
        ("\n- Tom\n- Ann", "Tom"),
        ("['Tom', 'Ann']", "Ann"),
        ("Tom and/or Ann", "Tom"),
        ("José, Élan", "José"),
        ("The Jets, the Bills", "Jets"),
        ("The winners were Tom, Ann, Bob", "Tom"),
        ("Week 3, Week 5", "Week 3"),
        ("Texas, Florida", "Texas"),
        ("QB, WR", "WR"),
        ("earls, dukes, kings", "earls"),
        ("May, June, July", "May"),
        ("May 8, June 9", "8 May"),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10", "7"),
        ("1,2,3,4", "2"),
        ("two, three", "2"),
        ("two and three", "2"),
        ("41 yards, 23 yards", "41"),
        ("14 to 10", "10"),
        ("14-10", "10"),
        ("5% to 10%", "10"),
        ("from 1914 to 1918", "1914"),
        ("Not Tom, but Ann", "Tom"),
    ],
)
def test_an_answer_that_names_further_things_gives_none(said, truth):
    assert not is_right(f"Answer: {said}", truth)


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        ("Denver, Colorado", "Denver"),
        ("Houston, TX", "Houston"),
        ("Tuesday, May 8, 1945", "May 8"),
        ("January 11, 1970", "1970"),
        ("In 1945, Tom Brady", "Tom Brady"),
        ("In week 3, 12 points", "12"),
        ("Yes, Tom", "Tom"),
        ("Martin Luther King, Jr.", "Martin Luther King"),
        ("Barack Obama, the president", "Barack Obama"),
        ("Tom Brady, who threw 3", "Tom Brady"),
        ("Tom Brady, 300 yards", "Tom Brady"),
        ("big, old, wooden bridge", "bridge"),
        ("12,000, roughly", "12000"),
        ("AC/DC", "AC/DC"),
        ("15 km/h", "15"),
        ("The Broncos won 24 to 10", "Broncos"),
        ("14 (from 24 to 10)", "14"),
        ("24 - 10 = 14", "14"),
        ("Not Tom, but Ann", "Ann"),
    ],
)
def test_what_a_comma_adds_to_a_span_is_no_further_span(said, truth):
    assert is_right(f"Answer: {said}", truth)


def test_where_several_spans_are_asked_for_a_list_of_them_is_right_and_a_longer_one_is_not():
    for joint in (", ", "; ", "/", " and "):
        assert is_right(f"Answer: Ann{joint}Tom", "Tom", "Ann")
        assert not is_right(f"Answer: Ann{joint}Tom{joint}Bob", "Tom", "Ann")


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        ("1/2", "0.5"),
        ("0.5", "1/2"),
        ("2 1/2", "2.5"),
        ("2½", "2.5"),
        ("⅓", "1/3"),
        ("one hundred", "100"),
        ("a hundred", "100"),
        ("one hundred and five", "105"),
        ("twelve hundred", "1200"),
        ("two thousand three hundred", "2300"),
        ("two million", "2000000"),
        ("forty-one trees", "41"),
    ],
)
def test_a_number_is_right_in_every_form(said, truth):
    assert is_right(f"Answer: {said}", truth)


@pytest.mark.parametrize(("said", "truth"), [("1/2", "1"), ("1/2", "2"), ("two three", "5"), ("one hundred", "1")])
def test_a_part_of_a_number_is_not_that_number(said, truth):
    assert not is_right(f"Answer: {said}", truth)


@pytest.mark.parametrize("said", ["1e30000000", "9" * 5000, "9" * 5000 + " million", "1/0 million", "½" * 500])
def test_a_number_of_any_size_is_read_at_once(said):
    begin = time.monotonic()
    assert not is_right(f"Answer: {said}", "3")
    assert time.monotonic() - begin < 5
