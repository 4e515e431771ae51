"""The spans that an answer to DROP gives, and whether they are those of a true answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusion.grading.spans.further import names_further
from fusion.grading.spans.words import in_digits, words_of, written_out
from fusion.grading.statements import extract_boxed, extract_final_answer, last_statement, without_invented_question


def extract_span(text: str) -> str | None:
    """Extract what a text gives as its answer: after its last "Answer:", in its last box, else its last short statement."""
    text = without_invented_question(text, lambda head: (extract_final_answer(head) or extract_boxed(head)) is not None)
    if listed := re.search(r"answer\s*:\**((?:\s*(?:[-•*]|\d+[.)])[ \t][^\n]+)+)\s*\Z", text, flags=re.IGNORECASE):
        return ", ".join(re.sub(r"^\s*(?:[-•*]|\d+[.)])\s+", "", line) for line in listed[1].strip().splitlines())
    return extract_final_answer(text) or extract_boxed(text) or last_statement(text)


def same_spans(answer: str | None, truths: Sequence[Sequence[str]]) -> bool:
    """Whether an answer gives all spans of one of the true answers, in any order, articles and punctuation aside.

    The words of a span must stand together. An answer that leaves it open (`2 or 3`) or names further spans (`Tom and Ann`,
    `Tom, Ann`, `Tom/Ann` where `Tom` is right, `14 to 10` where 10 is) gives none.
    """
    return any(_gives(answer or "", _parts(truth)) for truth in truths)


def same_words(answer: str | None, truths: Sequence[str]) -> bool:
    """Whether an answer gives any of the true answers, each of which is one span; see `same_spans`."""
    return same_spans(answer, [[truth] for truth in truths])


def split_spans(truth: str, passage: str) -> list[str]:
    """Split a true answer whose spans were joined by `and`, unless the passage holds it as one span."""
    truth = " ".join(truth.split())
    return [truth] if truth in " ".join(passage.split()) else _parts([truth])


def _parts(spans: Sequence[str]) -> list[str]:
    """The spans of an answer; where some were joined by `and`, each by itself."""
    return [part for span in spans for part in re.split(r"\s+and\s+", span.strip()) if part.strip()]


def _gives(answer: str, spans: Sequence[str]) -> bool:
    essence = _essence(" ".join(answer.split()), spans)
    wanted, said = [words_of(span) for span in spans], words_of(essence)
    if not wanted or not all(wanted) or names_further(essence, wanted):
        return False
    return any(
        all(f" {form(words)} " in f" {form(said)} " for words in wanted) for form in (str, in_digits, written_out)
    )


def _essence(answer: str, spans: Sequence[str]) -> str:
    """The answer without what it denies, and of an equation its result."""
    if not any(" not " in span for span in spans):
        answer = re.sub(r"^\W*not\s[^.;]*?,?\sbut\s(?:rather\s)?", "", answer, flags=re.IGNORECASE)
        answer = re.split(r"(?:^|,?\s+)(?:not|rather than|instead of|as opposed to)\s+", answer)[0]
    return answer.split("=")[-1] if not any("=" in span for span in spans) else answer
