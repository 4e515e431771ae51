r"""Numbers as people write them: LaTeX and typography as plain text (`9{,}500`, `\frac{36}{2}`, `−5`), and numbers in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

SIGNS = str.maketrans(
    dict.fromkeys("−–—﹣－", "-") | dict.fromkeys("×·⋅", "*") | dict.fromkeys("÷⁄∕", "/")
    | dict.fromkeys("\u00a0\u2009\u200a\u202f", " ")
    | {"π": " pi ", "∞": " inf ", "，": ",", "½": " 1/2", "¼": " 1/4", "¾": " 3/4"}
)  # fmt: skip
RAISED = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹", "-+0123456789")
SCALES = {"k": 10**3, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")
WORDS = {word: number for number, word in enumerate(ONES)} | {word: 10 * (2 + i) for i, word in enumerate(TENS)}
"""Numbers that answers spell out."""
BEFORE_A_PRONOUN = ("no", "this", "that", "the", "any", "each", "every", "which", "some", "another", "other", "only")
"""Words behind which `one` counts nothing."""
COUNTS = rf"\d|\b(?:{'|'.join([*SCALES, *WORDS])})\b"
GROUP = r"{((?:[^{}]|{[^{}]*})*)}"
UNIT = r"\\(?:text|mathrm|mbox|textbf|textrm|operatorname|mathit|mathbf)\s*{([^{}]*)}(?:\s*\^\s*{?-?\d+}?)?"


def plain_number_text(text: str) -> str:
    r"""LaTeX and typography of numbers as plain text: separators of thousands and units gone, `\frac{a}{b}` as `((a)/(b))`."""
    text = re.sub(r"[$€£¥₹]\s?\d{1,3}(?: \d{3})+(?!\d)", lambda match: match[0].replace(" ", ""), text)
    text = re.sub(
        r"\\(?:left|right|displaystyle|big|Big|bigl|bigr|quad|qquad)\b|\\[\[\]()]|(?<!\\)\$|`|\*\*", " ", text
    )
    text = re.sub(r"(?<=\d)(?:\{,\}|\\,|\\!|,\\!|\\;|\\ |\{\\,\}|,\\ )\s?(?=\d{3}(?!\d))", "", text)
    text = re.sub(
        UNIT,
        lambda match: f" {match[1]} " if re.search(COUNTS, match[1]) else " ",
        text.replace("\\$", "").replace("\\%", "%"),
    )
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f'](?=\d{3}(?!\d))", "", text)
    # 1.234,56: a point before the comma can only part thousands
    text = re.sub(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d+(?![\d.,]*\d)", _with_decimal_comma, text)
    text = re.sub(r"(\d*)\.(\d*)\\(?:overline|bar)\s*{?(\d+)}?", _repeating, text)
    text = re.sub(r"[⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda match: f"^{{{match[0].translate(RAISED)}}}", text.translate(SIGNS))
    text = re.sub(r"(?:(?<=\d)\s*)?\\[dtc]?frac\s*(\d)\s*(\d)(?!\d)", _fraction, text)
    for _ in range(4):  # from the innermost braces out
        text = re.sub(rf"(?:(?<=\d)\s*)?\\[dtc]?frac\s*{GROUP}\s*{GROUP}", _fraction, text)
        text = re.sub(rf"\\sqrt\s*\[([^\]]+)\]\s*{GROUP}", r" root(\1,\2)", text)
        text = re.sub(rf"\\sqrt\s*{GROUP}", r" sqrt(\1)", text)
        text = re.sub(rf"\\d?binom\s*{GROUP}\s*{GROUP}", r" binom(\1,\2)", text)
    text = re.sub(r"\\sqrt\s*(?:(\d)|\(([^()]*)\))", lambda match: f" sqrt({match[1] or match[2]})", text)
    text = re.sub(
        r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?)|(pi))", lambda match: f" sqrt({next(filter(None, match.groups()))})", text
    )
    text = re.sub(r"\\(?:cdot|times|ast)\b", "*", text)
    text = re.sub(r"\\div\b", "/", text)
    return re.sub(r"\\(?:approx|simeq|sim|doteq|equiv)\b|≈|≃|≅|⇒|→", "=", text).replace("\\,", " ").replace("\\!", "")


def _with_decimal_comma(match: re.Match[str]) -> str:
    return match[0].replace(".", "").replace(",", ".")


def _repeating(match: re.Match[str]) -> str:
    r"""A repeating decimal, `0.1\overline{6}`, as a fraction."""
    whole, fixed, period = match.groups()
    denominator = 10 ** len(fixed) * (10 ** len(period) - 1)
    return f"(({int(whole + fixed + period) - int(whole + fixed or 0)})/({denominator}))"


def _fraction(match: re.Match[str]) -> str:
    r"""A fraction; after a whole number, as in `3\frac{1}{2}`, it is added."""
    whole = (
        match.start() > 0
        and match.string[match.start() - 1].isdigit()
        and not re.search(r"[\^_]\s*\d+$", match.string[: match.start()])
    )
    simple = re.fullmatch(r"\s*\d+\s*", match[1]) and re.fullmatch(r"\s*\d+\s*", match[2])
    return f"{'+' if whole and simple else '*' if whole else ''}(({match[1]})/({match[2]}))"


def spelled_number(words: Sequence[str]) -> tuple[int, int]:
    """The number that words in small letters begin with, and of how many of them it consists: 0 and 0 where it is none.

    It ends before a word that cannot follow: of `five six` the first alone.
    """
    total = group = read = 0
    last = 1000  # what was said last: a smaller part may follow a larger one
    for number, word in enumerate(words):
        if word == "and" and (total or group >= 100):
            continue
        value = WORDS.get(word, SCALES.get(word) if word != "k" else None)
        if value is None or (value < 100 and not _may_follow(value, last)) or (value >= 100 and last in (0, value)):
            break
        if value >= 1000:
            total, group = total + max(1, group) * value, 0
        elif value == 100:
            group = max(1, group) * 100
        else:
            group += value
        last, read = value, number + 1
    return total + group, read


def _may_follow(value: int, last: int) -> bool:
    """Whether a number below 100 may stand behind the last part: one to nine behind tens, any behind hundreds and thousands."""
    return last >= 100 or (20 <= last < 100 and 0 < value < 10)


def last_spelled_number(text: str) -> str | None:
    """The last number in words of a text, in digits; None where it has none. `one` is often none, as in `this one`."""
    words, place, found = re.findall(r"[a-z]+", text.lower()), 0, None
    while place < len(words):
        value, read = spelled_number(words[place:])
        if read and not (words[place : place + read] == ["one"] and _is_pronoun(words, place)):
            found = str(value)
        place += max(1, read)
    return found


def _is_pronoun(words: Sequence[str], place: int) -> bool:
    return place + 1 == len(words) or (place > 0 and words[place - 1] in BEFORE_A_PRONOUN)
