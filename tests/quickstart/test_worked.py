"""Skills with workings: every step is right, and the last words are the answer alone."""

import re

import pytest

from fusion.quickstart import worked
from fusion.quickstart.skills import make_questions


@pytest.mark.parametrize("skill", worked.WORKINGS)
def test_every_step_is_right_and_the_answer_stands_at_the_end(skill):
    for row in make_questions(skill, 300, 0, split="heldout"):
        assert row["workings"].endswith(row["response"])
        for left, right in re.findall(r"([\d +*-]+) = (-?\d+)(?=[,.])", row["workings"]):
            assert eval(left) == int(right), row


@pytest.mark.parametrize(
    ("prompt", "workings"),
    [
        ("12 + 7 + 3 + 14 = ?", "12 + 7 = 19, 19 + 3 = 22, 22 + 14 = 36. Answer: 36"),
        (
            "3 pens at 14 each and 2 books at 25 each. How much is that?",
            "3 * 14 = 42, 2 * 25 = 50, 42 + 50 = 92. Answer: 92",
        ),
        ("a = 14; b = a - 9; c = b * 3. What is c?", "a = 14, b = 14 - 9 = 5, c = 5 * 3 = 15. Answer: 15"),
    ],
)
def test_workings_are_as_the_page_says(prompt, workings):
    work = (
        worked.work_variables
        if "a =" in prompt
        else worked.work_shopping
        if "at" in prompt
        else worked.work_running_sum
    )
    assert work(prompt) == workings


def test_splits_share_no_question_and_wrong_answers_are_wrong():
    splits = {
        split: {r["prompt"] for r in make_questions("shopping", 300, 0, split=split)} for split in ("fusion", "heldout")
    }
    assert not splits["fusion"] & splits["heldout"]
    right = make_questions("variables", 50, 0)
    wrong = make_questions("variables", 50, 0, label_noise=1.0)
    assert all(a["response"] != b["response"] for a, b in zip(right, wrong, strict=True))
