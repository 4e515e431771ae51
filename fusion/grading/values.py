"""The values that TheoremQA asks for: numbers within a tolerance, lists of them, truth values, options."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction

from fusion.grading.expressions import Number, evaluate
from fusion.grading.notation import plain_number_text
from fusion.grading.options import extract_option
from fusion.grading.statements import extract_boxed, extract_final_answer, last_statement, without_invented_question

ANSWER_TYPES = ("bool", "option", "integer", "float", "list of integer", "list of float")
BRACKETS = r"\\begin{[bpv]?matrix}(.*?)\\end{[bpv]?matrix}|\\?[\[({](.*)[\])}]"
IMAGINARY = r"(?:[\d)}*+\-−^{/]|\\cdot|\\times|\\?pi|π)\s*i(?![\w(]|\.\w|\s*=)|\dj\b"
"""The imaginary unit, and neither an index nor `i.e.`"""


def extract_value(text: str) -> str | None:
    """Extract what a text gives as its answer: in its last box, after its last "answer is", else its last short statement."""
    text = without_invented_question(text, lambda head: (extract_final_answer(head) or extract_boxed(head)) is not None)
    verdict = re.match(r"\W*(true|false|yes|no)\b\W*(?:\s|$)", text, flags=re.IGNORECASE)  # and then why
    return extract_final_answer(text) or extract_boxed(text) or (verdict[1] if verdict else last_statement(text))


def same_value(answer: str | None, truth: str, answer_type: str) -> bool:
    """Whether an answer has the value `truth` (in JSON) of the type `answer_type`, one of TheoremQA's `ANSWER_TYPES`.

    Floats agree within 4%, whole numbers exactly, lists element by element. Raises ValueError for another type.
    """
    if answer_type not in ANSWER_TYPES:
        raise ValueError(f"Unknown type of answer {answer_type!r} in TheoremQA; known are {', '.join(ANSWER_TYPES)}.")
    value = json.loads(truth)
    if answer is None:
        return False
    answer = extract_boxed(answer) or answer
    if answer_type == "bool":
        return _truth_value(answer) == value
    if answer_type == "option":
        return _option(answer) == str(value).strip("() ").upper()
    numbers = _elements(answer) if isinstance(value, list) else [_number(answer)]
    truths, loose = value if isinstance(value, list) else [value], "float" in answer_type
    return len(numbers) == len(truths) and all(_close(a, b, loose) for a, b in zip(numbers, truths, strict=True))


def _truth_value(answer: str) -> bool | None:
    """True or False, as an answer says it first; None where it says neither."""
    match = re.search(
        r"\b(?:(not|n't)\s+(?:\w+\s+)?)?(true|yes|correct|right|holds?|false|no|incorrect|wrong|untrue)\b",
        answer.lower().replace("n't", " n't").replace("n’t", " n't"),
    )
    said = ("true", "yes", "correct", "right", "hold", "holds")
    return None if match is None else (match[2] in said) != bool(match[1])


def _option(answer: str) -> str | None:
    """A letter by itself, small or not, in brackets or not."""
    match = re.match(r"\W*(?:option\s+)?\(?([a-zA-Z])(?![\w'])", answer)
    return match[1].upper() if match else extract_option(answer, "ABCDEF")


def _close(a: Number | None, b: int | float, loose: bool) -> bool:
    if a is None:
        return False
    if not loose and not isinstance(a, float):  # of many digits a float holds but the first
        return a == b
    try:  # 4% of nothing is nothing, and of what is not 0 a fixed tolerance could be more than all
        return math.isclose(float(a), b, rel_tol=0.04 if loose else 1e-9, abs_tol=1e-9 if b == 0 else 0.0)
    except OverflowError:  # more than a float holds
        return a == b


def _number(answer: str) -> Number | None:
    """The value of an answer; what stands in per cent, as hundredths; of `x = 2` and `P(A) is 2` what stands behind.

    None of a complex number, whose real part is not its value.
    """
    if re.search(IMAGINARY, re.sub(r"[-+]\s*0(?:\.0*)?\s*\*?\s*i\b", "", answer.rpartition("=")[2])):
        return None
    value = _in_per_cent(answer)
    if value is not None:
        return value
    either = [value for part in re.split(r"\s+or\s+", answer)[:4] if (value := evaluate(part)) is not None]
    if len(either) > 1:
        return either[0] if all(math.isclose(value, either[0], rel_tol=0.01) for value in either) else None
    if (value := evaluate(answer)) is not None:
        return value
    plain = plain_number_text(answer)
    found = re.search(
        r"(?<![\w.])-?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+|\s*(?:\*|x)\s*10\s*\^\s*{?-?\d+}?)?(?:\s*/\s*\d+)?(\s*%)?",
        plain,
        flags=re.IGNORECASE,
    )
    if found is None:
        return None
    return _in_per_cent(found[0]) if found[1] else evaluate(found[0])


def _in_per_cent(answer: str) -> Number | None:
    match = re.fullmatch(
        r"(.*\d)\s*(?:%|per\s?cent).*", plain_number_text(answer).strip(), flags=re.IGNORECASE | re.DOTALL
    )
    value = evaluate(match[1]) if match else None
    return None if value is None else (Fraction(value) if isinstance(value, int) else value) / 100


def _elements(answer: str) -> list[Number | None]:
    r"""The numbers of a list, `[1, 2]`, `(1,2)`, `\{1, 2\}`, a matrix of one row or column, `1, 2 and 3`, `x = 1, y = 2`."""
    match = re.search(BRACKETS, re.sub(r"\\left|\\right", "", answer), flags=re.DOTALL)
    inner = next((group for group in match.groups() if group is not None), "") if match else answer
    inner = inner.strip().strip("[] ").removesuffix("\\")
    separator = r"\\\\|&|;|,|\band\b" if match or re.search(r",\s", inner) else r"\\\\|&|;|,(?!\d{3}\b)|\band\b"
    parts = re.split(separator, inner)
    if len(parts) == 1 and match:  # [1 2]
        parts = inner.split()
    return [_number(part) for part in parts if part.strip()]
