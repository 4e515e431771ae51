"""The short phrase that a task of BBH asks for: an option, yes or no, a number, words in order, brackets."""

from __future__ import annotations

import re

from fusion.grading.expressions import evaluate
from fusion.grading.statements import extract_boxed, extract_final_answer, last_statement, without_invented_question

VERDICTS = ("yes", "no", "true", "false", "valid", "invalid", "plausible", "implausible")


def extract_phrase(text: str) -> str | None:
    """Extract the final answer of a chain of thought; of an option such as `(B) red` the letter in its brackets alone.

    A text that never says "answer" ends with it.
    """
    text = without_invented_question(text, lambda head: extract_final_answer(head) is not None)
    answer = extract_final_answer(text) or extract_boxed(text) or last_statement(text)
    answer = (
        re.sub(r"\\(?:text|mathrm|textbf)\s*{([^{}]*)}", r"\1", extract_boxed(answer) or answer) if answer else answer
    )
    bracketed = answer and re.match(r"(\([A-Z]\))", answer)
    return bracketed[1] if bracketed else answer


def same_phrase(answer: str | None, target: str) -> bool:
    """Whether a phrase is the target, apart from capitals, quotes, commas and full stops.

    Of an option the letter counts, of yes and no the first word, of a number its value, of brackets their order.
    """
    if answer is None:
        return False
    said, wanted = _plain(answer), _plain(target)
    if said == wanted:
        return True
    if re.fullmatch(r"\([a-z]\)", wanted):
        option = re.match(r"(?:option )?[(\[]?([a-z])(?:[)\].:](?: .*)?)?$", said)
        return option is not None and f"({option[1]})" == wanted
    if wanted in VERDICTS:
        first = re.match(r"[a-z]+", said)
        return first is not None and first[0] == wanted and not re.search(r"\b(?:and|or|but)\b", said)
    if re.fullmatch(r"-?[\d.]+", wanted):
        return evaluate(said) == evaluate(wanted)
    if ":" not in wanted:  # `sorted: apple, bat`
        said = said.rpartition(":")[2].strip()
    space = " " if re.search(r"\w", wanted) else ""
    return re.sub(r"[,\s]+", space, said) == re.sub(r"\s+", space, wanted)


def _plain(text: str) -> str:
    text = re.sub(r"\s+", " ", text.replace("−", "-").strip().strip("\"'“”").lower())
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.removesuffix(".").strip("\"'“” "))
