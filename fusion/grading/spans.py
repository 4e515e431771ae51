"""The words that DROP asks for: one or several spans of the passage, in either order, numbers and dates, in any usual form."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

from fusion.grading.notation import SCALES, WORDS
from fusion.grading.statements import extract_boxed, extract_final_answer, last_statement, without_invented_question

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
MONTH = rf"({'|'.join(f'{month[:3]}(?:{month[3:]}|t)?' if len(month) > 3 else month for month in MONTHS)})\.?"
ORDINALS = {
    "first": "1st",
    "second": "2nd",
    "third": "3rd",
    "fourth": "4th",
    "fifth": "5th",
    "sixth": "6th",
    "seventh": "7th",
}
UNITS = {"yards": "yard", "years": "year", "points": "point", "miles": "mile"}
SILENT = ("a", "an", "the", "percent")
DAY = r"(\d{1,2})(?:st|nd|rd|th)?"


def extract_span(text: str) -> str | None:
    """Extract what a text gives as its answer: after its last "Answer:", in its last box, else its last short statement."""
    text = without_invented_question(text, lambda head: (extract_final_answer(head) or extract_boxed(head)) is not None)
    if listed := re.search(r"answer\s*:\**((?:\s*(?:[-•*]|\d+[.)])[ \t][^\n]+)+)\s*\Z", text, flags=re.IGNORECASE):
        return ", ".join(re.sub(r"^\s*(?:[-•*]|\d+[.)])\s+", "", line) for line in listed[1].strip().splitlines())
    return extract_final_answer(text) or extract_boxed(text) or last_statement(text)


def same_spans(answer: str | None, truths: Sequence[Sequence[str]]) -> bool:
    """Whether an answer gives all spans of one of the true answers, in any order, articles and punctuation aside.

    The words of a span must stand together. An answer that leaves it open (`2 or 3`) or names further spans (`Tom and Ann`
    where `Tom` is right) gives none.
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
    wanted, said = [_words(span) for span in spans], _words(_essence(answer, spans))
    if not wanted or not all(wanted) or _further(answer, wanted):
        return False
    return any(
        all(f" {form(words)} " in f" {form(said)} " for words in wanted) for form in (str, _digits, _written_out)
    )


def _essence(answer: str, spans: Sequence[str]) -> str:
    """The answer without what it denies, and of an equation its result."""
    if not any(" not " in span for span in spans):
        answer = re.split(r"(?:^|,?\s+)(?:not|rather than|instead of|as opposed to)\s+", answer)[0]
    return answer.split("=")[-1] if not any("=" in span for span in spans) else answer


def _further(answer: str, wanted: Sequence[str]) -> bool:
    """Whether an answer names further things: after `or`, or after `and` a name or number that is none of the spans."""
    answer = re.sub(r"\([^()]*\)", " ", answer)
    alternatives = re.split(r"\s+or\s+", answer)
    if len(alternatives) > 1 and not any(" or " in f" {words} " for words in wanted):
        return True
    items = re.split(r",?\s+(?:and|&)\s+|,\s+" if len(wanted) > 1 else r",?\s+(?:and|&)\s+", answer.split(":")[-1])
    if len(items) < 2:
        return False
    return any(re.match(r"[A-Z0-9]|(?:the|an?)\s", item) and not _holds(item, wanted) for item in items)


def _holds(item: str, wanted: Sequence[str]) -> bool:
    said = f" {_words(item)} "
    return any(f" {words} " in said or said.strip() in words for words in wanted)


def _words(text: str) -> str:
    """Small letters, no articles; punctuation and hyphens part words; numbers and dates in one form."""
    text = text.translate(str.maketrans({"−": "-", "–": "-", "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"'}))
    text = re.sub(r"\\(?:text|mathrm|textbf)\s*{([^{}]*)}|\\\$", lambda match: match[1] or " ", text)
    text = re.sub(r"(\d*)\s?([½¼¾⅛⅜⅝⅞])", lambda match: str(int(match[1] or 0) + unicodedata.numeric(match[2])), text)
    text = "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))
    text = re.sub(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3})", "", text.lower())
    text = re.sub(r"(?<=\b[a-z])\.(?=[a-z]\b)", "", re.sub(r"(?<=\d)-(?=[a-z])", " ", text))
    text = re.sub(r"(?<=\w)'s\b|(?<=s)'(?=\s|$)", "", _dates(text))
    text = re.sub(r"(?<=\d)(?=(?:%|km|m|kg|s)\b)|(?<=\d)-?(?=yards?\b)", " ", text)
    text = re.sub(r"(?<![^\s($])-(?=[\d.])", " minus", text)
    text = re.sub(rf"(?!(?<![a-z])\.(?=\d))[{re.escape(string.punctuation)}]", " ", text)
    words = (ORDINALS.get(word, UNITS.get(word, word)) for word in text.split() if word not in SILENT)
    return " ".join(map(_numeral, words))


def _digits(words: str) -> str:
    """Words with the number in words at their beginning, `forty one trees`, in digits."""
    first, *rest = words.split() or [""]
    if first not in WORDS:
        return words
    if rest and WORDS[first] >= 20 and WORDS.get(rest[0], 99) < 10:
        return " ".join([str(WORDS[first] + WORDS[rest[0]]), *rest[1:]])
    return " ".join([str(WORDS[first]), *rest])


def _written_out(words: str) -> str:
    """Words with thousands, millions and billions behind a number as that number: `1.5 million` as 1500000."""
    scaled = rf"(?<!\S)(\d+(?:\.\d+)?|\d+/\d+) ({'|'.join(SCALES)})(?!\S)"
    return re.sub(scaled, lambda match: str(Fraction(match[1]) * SCALES[match[2]]), words)


def _numeral(word: str) -> str:
    try:
        return str(Fraction(word))
    except (ValueError, ZeroDivisionError):
        return word


def _dates(text: str) -> str:
    """Each date of a text in small letters as day, month in letters, year: `8 may 1945`, however it was written."""
    text = re.sub(r"\b(\d{4})-(\d{2})-(\d{2})\b", lambda date: f"{date[3]} {_month(int(date[2]))} {date[1]}", text)
    text = re.sub(
        r"\b(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})\b", lambda date: f"{date[1]} {_month(int(date[2]))} {date[3]}", text
    )
    text = re.sub(rf"\b(\d{{4}}),?\s+{MONTH}\s+{DAY}(?!\d)", r"\3 \2 \1", text)
    text = re.sub(rf"\b{MONTH}\s+{DAY}(?!\d)(?:\s*,?\s*(\d{{4}})\b)?", r"\2 \1 \3", text)
    text = re.sub(
        rf"\b{DAY}\s+(?:of\s+)?{MONTH}(?![a-z])\s*,?\s*", lambda date: f"{int(date[1])} {_name(date[2])} ", text
    )
    return re.sub(rf"\b{MONTH}(?![a-z])\s*,?\s*(?:of\s+)?(?=\d{{4}}\b)", lambda date: f"{_name(date[1])} ", text)


def _month(number: int) -> str:
    return MONTHS[number - 1] if 0 < number <= len(MONTHS) else str(number)


def _name(short: str) -> str:
    return next(month for month in MONTHS if month.startswith(short[:3]))
