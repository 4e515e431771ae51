"""Options named by their text, denied or beside a reason, and phrases of BBH, against the verdict of a reader."""

import pytest

from fusion.grading.answers import extract_option, extract_phrase, same_phrase

THINGS = ["ice", "fire", "stone", "water"]
NUMBERS = ["-1", "1", "0", "2"]


@pytest.mark.parametrize(
    ("text", "choices", "letter"),
    [
        ("It is fire, not ice.", THINGS, "B"),
        ("Not ice, but fire.", THINGS, "B"),
        ("fire rather than ice", THINGS, "B"),
        ("It cannot be ice, so fire.", THINGS, "B"),
        ("fire, since ice is cold", THINGS, "B"),
        ("fire because ice is cold", THINGS, "B"),
        ("Neither ice nor fire.", THINGS, None),
        ("It is not ice.", THINGS, None),
        ("fire and ice", THINGS, None),
        ("The object is not transparent.", ["opaque", "transparent", "clear", "glassy"], None),
        ("It is not clear.", ["It is clear", "It is not clear", "It is red", "It is blue"], "B"),
        ("The answer is −1", NUMBERS, "A"),
        ("The answer is -1 m.", NUMBERS, "A"),
        ("The answer is 1 m.", NUMBERS, "B"),
        ("The answer is -1", ["−1", "1", "0", "2"], "A"),
    ],
)
def test_an_option_is_chosen_by_its_text_where_it_is_not_denied(text, choices, letter):
    assert extract_option(text, "ABCD", choices) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I think D", "D"),
        ("I think that B.", "B"),
        ("We believe C, because it is hot.", "C"),
        ("I think B is wrong.", None),
        ("which matches answer choice B.", "B"),
        ("It corresponds to option C.", "C"),
        ("It does not match answer choice B.", None),
        ("I believe the answer to be D.", "D"),
    ],
)
def test_a_letter_is_read_where_a_sentence_chooses_it(text, letter):
    assert extract_option(text) == letter


@pytest.mark.parametrize(
    ("text", "truth", "right"),
    [
        ("The answer is (A) or (B).", "(A)", False),
        ("The answer is (A) or (B).", "(B)", False),
        ("The answer is (A) red and (B) blue.", "(A)", False),
        ("The answer is (A), (B).", "(A)", False),
        ("The answer is (A) and not (B).", "(A)", True),
        ("The answer is (B), (A) is wrong.", "(B)", True),
        ("Therefore, Option (C) is correct", "(C)", True),
        ("So (C) is the answer.", "(C)", True),
        ("Neither (A) nor (C) is correct", "(A)", False),
        ("The argument is deductively valid.", "valid", True),
        ("The argument is deductively invalid.", "valid", False),
        ("The argument is clearly not valid.", "valid", False),
        ("The argument is hardly valid.", "valid", False),
        ("The answer is:\napple\nbar\nzoo", "apple bar zoo", True),
        ("1. apple\n2. bar\n3. zoo", "apple bar zoo", True),
        ("Sorted:\n\n- apple\n- bar\n- zoo\n", "apple bar zoo", True),
        ("The answer is:\nbar\napple\nzoo", "apple bar zoo", False),
        ("The answer is:\napple\nbar", "apple bar zoo", False),
        ("The answer is:\n(A)\nThanks", "(A)", True),
    ],
)
def test_a_phrase_of_bbh_is_judged(text, truth, right):
    assert same_phrase(extract_phrase(text), truth) == right
