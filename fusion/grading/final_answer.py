"""The final answer of a text, and whether two texts have the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fusion.grading import answers

AnswerPart = Literal["number", "option", "text"]
"""What of an answer is compared: its last number (in its last box, where there is one), the option it names, or all of it."""
OPTIONS = "ABCDEFGHIJ"
"""Letters of as many options as benchmarks have."""


def extract_any_option(text: str) -> str | None:
    """The letter that an answer chooses, of up to ten options; of the first four where it names one and no later one.

    `I` counts only where there is no other: it is a word too.
    """
    of_all, of_four = answers.extract_option(text, OPTIONS), answers.extract_option(text)
    return of_all if of_all and of_all > "D" and of_all != "I" else of_four or of_all


EXTRACT: dict[AnswerPart, Callable[[str], str | None]] = {
    "number": answers.extract_number,
    "option": extract_any_option,
    "text": lambda text: answers.without_thoughts(text).strip() or None,
}


def same_answer(part: AnswerPart, text: str, other_text: str) -> bool:
    """Return whether this part of both texts is the same; where either has none, they differ."""
    answer, other = EXTRACT[part](text), EXTRACT[part](other_text)
    if answer is None or other is None:
        return False
    return answers.same_number(answer, other) if part == "number" else answer == other
