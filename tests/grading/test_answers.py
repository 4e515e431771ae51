"""Extraction of boxes, functions and code, right and malformed; whole answers are in tests/eval/suites/test_scoring.py."""

import pytest

from fusion.grading import answers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{ 7 }", "7"),
        (r"first \boxed{3}, then \boxed{4", "3"),  # the last one is never closed
        (r"\boxed 5", "5"),
        (r"so $\boxed12$.", "12"),
        ("no box", None),
        ("", None),
    ],
)
def test_the_last_whole_box_is_read(text, found):
    assert answers.extract_boxed(text) == found


def test_an_unknown_type_of_theoremqa_is_named():
    with pytest.raises(ValueError, match="type of answer 'matrix' in TheoremQA; known are bool, option"):
        answers.same_value("1", "1", "matrix")


PROMPT = 'from math import pi\n\ndef area(r):\n    """Of a circle."""\n'


@pytest.mark.parametrize(
    "text",
    [
        "    return pi * r ** 2\n\nprint(area(1))",
        "return pi * r ** 2",
        "Here it is:\n```python\ndef area(r):\n    return pi * r ** 2\n```\nDone.",
        "```\nfrom math import pi\n\ndef square(r):\n    return r * r\n\ndef area(r):\n    return pi * square(r)\n```",
        "```python\ndef area(r):\n    return pi * r ** 2",  # cut off before the block was closed
    ],
)
def test_a_function_is_completed_however_it_is_given(text):
    names: dict = {}
    exec(answers.complete_function(text, PROMPT, "area"), names)
    assert names["area"](2) == pytest.approx(12.566, abs=1e-3)


def test_the_last_block_of_code_is_read_and_without_one_everything():
    assert answers.extract_code("```\na\n```\nthen\n```python\nb\n```") == "b\n"
    assert answers.extract_code("x = 1") == "x = 1"
