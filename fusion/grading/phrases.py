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
    if (words := _words_in_lines(text)) is not None:
        return words
    answer = extract_final_answer(text) or extract_boxed(text) or _called_right(text) or last_statement(text)
    answer = (
        re.sub(r"\\(?:text|mathrm|textbf)\s*{([^{}]*)}", r"\1", extract_boxed(answer) or answer) if answer else answer
    )
    bracketed = answer and re.match(r"(\([A-Z]\))", answer)
    return bracketed[1] if bracketed and not _wavers(answer or "") else answer


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
        return option is not None and f"({option[1]})" == wanted and not _wavers(said)
    if wanted in VERDICTS:
        first = re.match(r"(?:(?!only|hardly|barely)[a-z]+ly )?([a-z]+)", said)  # `deductively valid`
        return first is not None and first[1] == wanted and not re.search(r"\b(?:and|or|but)\b", said)
    if re.fullmatch(r"-?[\d.]+", wanted):
        return evaluate(said) == evaluate(wanted)
    if ":" not in wanted:  # `sorted: apple, bat`
        said = said.rpartition(":")[2].strip()
    space = " " if re.search(r"\w", wanted) else ""
    return re.sub(r"[,\s]+", space, said) == re.sub(r"\s+", space, wanted)


def _wavers(answer: str) -> bool:
    """Whether a further option in brackets is joined to the first: `(A) or (B)`, `(A), (B)`."""
    joined = r"(?:\b(?:or|and)\s+|[,/&]\s*)(?:option\s+)?\([a-z]\)(?!\s*(?:is|are)\b)"
    return bool(re.search(joined, answer, flags=re.IGNORECASE))


def _called_right(text: str) -> str | None:
    """The last option in brackets that is called right: `Option (C) is correct`."""
    called = r"(?<!or )(?<!and )(?<!if )(\([A-Z]\))\s+(?:is|must be)\s+(?:the\s+)?(?:correct|right|best|answer)\b"
    found = re.findall(called, re.sub(r"(?i)\boption\s+(?=\()", "", text))
    return found[-1] if found else None


def _words_in_lines(text: str) -> str | None:
    """Words that stand one a line at the end of a text, behind a colon or with nothing before them."""
    lines, words = [line for line in text.splitlines() if line.strip()], []
    word = r"\s*(?:[-•*]\s+|\d+[.)]\s*)?\**([^\W\d][\w'’-]*)\**[.,]?\s*"
    while lines and (match := re.fullmatch(word, lines[-1])):
        words.insert(0, match[1])
        lines.pop()
    headed = not lines or lines[-1].rstrip(" *").endswith(":")
    return " ".join(words) if len(words) > 1 and headed else None


def _plain(text: str) -> str:
    text = re.sub(r"\s+", " ", text.replace("−", "-").strip().strip("\"'“”").lower())
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.removesuffix(".").strip("\"'“” "))
