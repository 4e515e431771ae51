"""The words of a span in one form, so that two spans are the same where their words are."""

from __future__ import annotations

import re
import string
import unicodedata
from fractions import Fraction

from fusion.grading.notation import SCALES, WORDS
from fusion.grading.spans.dates import dates_in_one_form

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
LONGEST = 400
"""Characters of a numeral whose value is taken: an exact value of millions of digits would take for ever."""
OVER = "⁄"  # of a fraction, where other slashes part words


def words_of(text: str) -> str:
    """Small letters, no articles; punctuation and hyphens part words; numbers and dates in one form."""
    text = text.translate(str.maketrans({"−": "-", "–": "-", "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"'}))
    text = re.sub(r"\\(?:text|mathrm|textbf)\s*{([^{}]*)}|\\\$", lambda match: match[1] or " ", text)
    text = _fractions_in_one_form(text)
    text = "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))
    text = re.sub(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3})", "", text.lower())
    text = re.sub(r"(?<=\b[a-z])\.(?=[a-z]\b)", "", re.sub(r"(?<=\d)-(?=[a-z])", " ", text))
    text = re.sub(r"(?<=\w)'s\b|(?<=s)'(?=\s|$)", "", dates_in_one_form(text))
    text = re.sub(r"(?<=\d)(?=(?:%|km|m|kg|s)\b)|(?<=\d)-?(?=yards?\b)", " ", text)
    text = re.sub(r"(?<![^\s($])-(?=[\d.])", " minus", text)
    text = re.sub(rf"(?!(?<![a-z])\.(?=\d))[{re.escape(string.punctuation)}]", " ", text)
    words = (ORDINALS.get(word, UNITS.get(word, word)) for word in text.split() if word not in SILENT)
    return " ".join(map(_numeral, words))


def in_digits(words: str) -> str:
    """Words with the number in words at their beginning, `two hundred and one trees`, in digits."""
    total, group, read, parts = 0, 0, 0, words.split()
    for place, word in enumerate(parts):
        if word == "and" and read == place and read and group % 100 == 0 and _is_count(parts[place + 1 :]):
            continue
        if word in SCALES and read:
            total, group = total + max(group, 1) * SCALES[word], 0
        elif word == "hundred" and group < 100:
            group = max(group, 1) * 100
        elif word in WORDS and _fits_behind(group, WORDS[word]):
            group += WORDS[word]
        else:
            break
        read = place + 1
    return " ".join([str(total + group), *parts[read:]]) if read else words


def written_out(words: str) -> str:
    """Words with thousands, millions and billions behind a number as that number: `1.5 million` as 1500000."""
    number = rf"\d{{1,{LONGEST}}}"
    scaled = rf"(?<!\S)({number}(?:\.{number}|/{number})?) ({'|'.join(SCALES)})(?!\S)"
    return re.sub(scaled, lambda match: str(Fraction(match[1]) * SCALES[match[2]]), words)


def _is_count(words: list[str]) -> bool:
    return bool(words) and words[0] in WORDS


def _fits_behind(group: int, value: int) -> bool:
    """Whether a number below a hundred goes on what was read: on `hundred` any, on `forty` one, on `two` none."""
    return group % 100 == 0 or (group % 100 >= 20 and group % 10 == 0 and value < 10)


def _fractions_in_one_form(text: str) -> str:
    """A text with each fraction, `1/2`, `½`, `2 1/2`, `2½`, as one word."""
    text = re.sub(
        r"(\d{0,9})\s?([½¼¾⅓⅔⅛⅜⅝⅞])",
        lambda match: _over(int(match[1] or 0) + Fraction(unicodedata.numeric(match[2])).limit_denominator(8)),
        text,
    )
    return re.sub(
        r"(?<![\d./,])(?:(\d{1,9})\s)?(\d{1,9})/([1-9]\d{0,8})(?![\d/]|[.,]\d)",
        lambda match: _over(int(match[1] or 0) + Fraction(int(match[2]), int(match[3]))),
        text,
    )


def _over(value: Fraction) -> str:
    return f"{value.numerator}{OVER}{value.denominator}"


def _numeral(word: str) -> str:
    if len(word) > LONGEST or re.search(r"e\d{4,}", word):
        return word
    try:
        return str(Fraction(word.replace(OVER, "/")))
    except (ValueError, ZeroDivisionError):
        return word
