"""The number that a worked solution ends with, as GSM8K asks for, and whether two numbers are the same."""

from __future__ import annotations

import re
from fractions import Fraction

from fusion.grading.expressions import Number, evaluate
from fusion.grading.notation import COUNTS, SCALES, last_spelled_number, plain_number_text
from fusion.grading.statements import asserted, extract_boxed, without_invented_question

DIGITS = r"(?:\d{1,3}(?: \d{3})+(?![\d.,/]*\d)|\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
NUMBER = (  # neither an exponent nor a time of day; also a whole number and a fraction
    rf"(?<![\w.^])(?<!\^{{)(?<!\^{{-)(?<!\^-)(?<!\d:)-?\s?[$€£¥₹]?\s?-?{DIGITS}(?:e[-+]?\d+)?"
    r"(?:(?:\s*|(?<=\d) \d+\s?)/\s*\d+(?![\d/]))?(?!:?\d)"
)
CLAIM = r"\banswer\s*(?:is|was|would be|should be|must be|will be|comes to|equals|=|:|->|→)+\s*"
SEVERAL = r"[\[({]?\s*NUMBER(?:\s*,\s*NUMBER)+\s*[\])}]?|NUMBER\s+(?:or|and)\s+NUMBER.*".replace(
    "NUMBER", r"[-$]?\d+(?:\.\d+)?"
)
"""A tuple, a list or a choice, which is no number."""
LETTERS = (
    r"^[^a-zA-Z=]*\d\s*(?!(?:cm|km|mm|kg|mg|ml|st|nd|rd|th|am|pm|hr|min|k|m|g|l|s|h|L)\b)[a-zA-Z]\b(?:\s*$|\s*[-+^=])"
)
"""A number times a letter, as in `7x+2` or `6+9i`."""
GROUPED = r"-?\$?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?"

LONGEST = 300
"""Characters of a sentence that are read: models repeat themselves without end."""
TOTAL = r"=|\b(?:result|total|sum|difference|remainder|profit)\b[^.\d]*\b(?:is|are|was)\b"

ASIDE = (
    r"\b(?:in|for|at|after|before|from|per|to|with|by|each|every|than|on|within|the|these|those|all"
    r"|(?<!total )(?<!sum )(?<!maximum )(?<!minimum )of)(?:\s+[a-z]+){0,2}\s*$"
    r"|^(?:if|since|because|as|given|when|after|with)\b[^,]*$|\d.*\b(?:because|since|which|if)\b.*$|:[^.]*$"
)
"""What stands before a number that is not the answer but says of what, when or how it was found."""


FURTHER_STEP = r"(?i)\W*(?:now|next|then|finally|first|second|third|step \d+)\b[^\n]*[^\s.!?:)\]$}*\d]\s*$"
"""A last line that begins a further step and was cut off in it, so that what stands before is no answer yet."""


def extract_number(text: str) -> str | None:
    r"""Extract the number that a text gives as its answer: `18`, `9500`, `-5`, `18.50`, a fraction as a decimal or as `1/3`.

    That is what stands in the last box, else behind the last `####`, else after the last "answer is", else the last number
    of the text, or of its last equation. What a model invents after its answer, such as a next question, is not read.
    """
    return _number(without_invented_question(text, lambda head: _stated(head) is not None or _number(head) is not None))


def same_number(answer: str | None, truth: str) -> bool:
    """Whether both are the same number: 18, 18.0 and 36/2 are."""
    expected = extract_number(truth)
    if answer is None or expected is None:
        return False
    return (value := evaluate(answer)) is not None and value == evaluate(expected)


def _number(text: str) -> str | None:
    if (box := extract_boxed(text)) is not None:
        return None if re.fullmatch(r"-?\d+\s*k", box) else _read(box)  # an unknown, and no thousands
    if (stated := _stated(text)) is not None:
        return _read(stated.strip().rstrip("! "))
    text = _without_cut_off(text)
    if re.match(FURTHER_STEP, text.rstrip().rpartition("\n")[2]):
        return None
    lines = [line for line in plain_number_text(text).splitlines() if re.search(r"\d", line)]
    return _read_line(lines[-1], text) if lines else _read(text) or last_spelled_number(text[-LONGEST:])


def _without_cut_off(text: str) -> str:
    r"""A text without a box or formula at its end that was never closed, `\boxed{1` or `\[ 2 + 3 = 5 \text{ boxes`."""
    return re.sub(r"(?:\\\()?\\boxed{[^{}]*\Z|\\\[(?:(?!\\\]).)*\Z", "", text, flags=re.DOTALL)


def _stated(text: str) -> str | None:
    """What a text says its answer is."""
    if (box := extract_boxed(text)) is not None:
        return box
    for pattern in (r"####\s*([^\n]*\d[^\n]*)", rf"{CLAIM}(?=([^\n]*(?:{COUNTS})[^\n]*))"):
        if claims := asserted(re.findall(pattern, text, flags=re.IGNORECASE)):
            return _sentence(claims[-1])
    return None


def _sentence(text: str) -> str:
    """The beginning up to the end of its sentence."""
    return re.split(r"[.!?](?=\s|$|[\"'”*])", text[:LONGEST])[0]


def _read(text: str) -> str | None:
    """The one number of a box or a statement: evaluated as a whole, else the first number after the last `=`."""
    text = re.sub(r"^(?:negative|minus)\s+(?=[$\d])", "-", text.strip().rstrip(". "), flags=re.IGNORECASE)
    plain = _on_one_level(plain_number_text(text)).strip()
    if _is_several(plain) or re.search(LETTERS, plain):
        return None
    if (value := evaluate(text)) is not None:
        return _write(value, text)
    parts = [part for part in plain.split("=") if re.search(NUMBER, part)]
    # of a function that has no value here, an argument is no answer
    return _first(parts[-1]) if parts and not re.search(r"(?:binom|sqrt|root|factorial)\(", parts[-1]) else None


def _is_several(plain: str) -> bool:
    return bool(re.fullmatch(SEVERAL, plain)) and not re.fullmatch(GROUPED, plain)


def _on_one_level(plain: str) -> str:
    """Fractions and powers of whole numbers as they are written in one line: `((1)/(2))` as 1/2, `2^{10}` as 1024."""
    plain = re.sub(r"(\d)\s*\+\(\((\d+)\)/\((\d+)\)\)", r"\1 \2/\3", plain)
    plain = re.sub(r"\(\((\d+)\)/\((\d+)\)\)", r"\1/\2", plain)
    plain = re.sub(r"(\d+(?:\.\d+)?)\s*[*x]\s*10\s*\^\s*{?(-?\d+)}?", r"\1e\2", plain)
    return re.sub(
        r"(?<![\w.)}])(\d{1,4})\s*\^\s*{?(\d{1,2})}?(?![\w.*^])",
        lambda match: str(int(match[1]) ** int(match[2])),
        plain,
    )


def _read_line(line: str, text: str) -> str | None:
    """The answer in the last line with a number: the bold one, that of the last equation, or the last."""
    line = re.sub(r"\bnegative\s+(?=[$\d])", "-", _on_one_level(line), flags=re.IGNORECASE)
    if _is_several(line.strip()):
        return None
    bold = re.findall(r"\*\*([^*\n]*\d[^*\n]*)\*\*(?!\s*:)", text.splitlines()[-1] if text.strip() else "")
    if len(bold) == 1 and evaluate(bold[0]) is not None:
        return _read(bold[0])
    sentences = [part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z])", line) if re.search(NUMBER, part)] or [line]
    sentence = re.sub(r"(?<=\d)([^\d(]*)\([^()]*\)", r"\1", sentences[-1])  # how it was found, in brackets behind it
    sentence = sentence[-LONGEST:]
    *before, last = re.split(TOTAL, sentence, flags=re.IGNORECASE)
    if before and (number := _first(last)) is not None:
        return number
    matches = list(re.finditer(NUMBER, sentence, flags=re.IGNORECASE))
    main = [match for match in matches if not re.search(ASIDE, sentence[: match.start()], flags=re.IGNORECASE)]
    return _scaled((main or matches)[-1], sentence) if matches else None


def _first(text: str) -> str | None:
    match = re.search(NUMBER, text, flags=re.IGNORECASE)
    return _scaled(match, text) if match else None


def _scaled(match: re.Match[str], text: str) -> str | None:
    """A number with the thousand or million that stands behind it."""
    digits = re.sub(r"^-\s+", "-", re.sub(r"[,$€£¥₹]", "", match[0]).strip())
    scale = re.match(r"\s*(k|thousand|million|billion|trillion)\b", text[match.end() :], flags=re.IGNORECASE)
    value = evaluate(digits)
    if value is None:
        return None
    return _write(Fraction(value) * SCALES[scale[1].lower()] if scale else value, "" if scale else digits)


def _write(value: Number, text: str) -> str:
    """A number as text: as it was written where that is plain digits, else in its shortest exact form."""
    digits = re.sub(r"[\s,$]", "", text)
    if re.fullmatch(r"-?\d+(?:\.\d+)?", digits):
        return digits
    if isinstance(value, float):
        return repr(value)
    exact = Fraction(value)
    short = exact.numerator if exact.denominator == 1 else float(exact)
    return str(short) if Fraction(str(short)) == exact else str(exact)
