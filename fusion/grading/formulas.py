"""The expression that a solution of MATH ends with, and whether two expressions are the same."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from fusion.grading.expressions import Number, closed_value
from fusion.grading.statements import extract_boxed, extract_final_answer, last_statement, without_invented_question

SEVERAL = r"\\(?:text|mathrm|mbox)\s*{\s*(?:or|and)\b"
LARGEST_ROUNDED = 1e6
"""Beyond this six digits do not tell whole numbers apart."""
UNPARSED = r"_\s*{?\d|\\[lc]?dots|…|\.\.\.|!"
"""Bases, sequences that go on and factorials, of which computer algebra reads a part and calls that the whole."""
SIGNS = {"<": ("<", True), "\\lt": ("<", True), "\\le": ("<", False), "\\leq": ("<", False), "≤": ("<", False)} | {
    ">": (">", True), "\\gt": (">", True), "\\ge": (">", False), "\\geq": (">", False), "≥": (">", False),
}  # fmt: skip
"""How each sign runs, and whether it leaves the end out."""
SIGN = r"(\\(?:leq?|geq?|lt|gt)(?![a-z])|[<>≤≥])"
END = r"([^<>≤≥=]+?)"
BETWEEN = re.compile(rf"\s*{END}\s*{SIGN}\s*[a-zA-Z]\s*{SIGN}\s*{END}\s*")
BEYOND = re.compile(rf"\s*[a-zA-Z]\s*{SIGN}\s*{END}\s*")
MATH = r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|\$([^$]+)\$"


def extract_formula(text: str) -> str | None:
    r"""Extract the expression that a text gives as its answer: in its last box, after "answer is", else in its last sentence.

    Of a statement with formulas between dollars or `\( \)` the last formula.
    """
    text = without_invented_question(text, lambda head: (extract_boxed(head) or extract_final_answer(head)) is not None)
    if (box := extract_boxed(text)) is not None:
        return box
    said = re.sub(r"\.\s+I hope.*", "", extract_final_answer(text) or last_statement(text) or "")
    formulas = [next(filter(None, groups)) for groups in re.findall(MATH, said, flags=re.DOTALL)]
    return (formulas[-1] if formulas else said).strip(" .") or None


def same_expression(answer: str | None, truth: str) -> bool:
    """Whether two LaTeX expressions agree: as text by the benchmark's own rules, in value, or by computer algebra."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv

    if not answer:
        return False
    said, wanted = _normal(answer), _normal(truth)
    several = re.search(SEVERAL, answer) is not None  # of which the benchmark's rules read the first alone
    if (is_equiv(answer, truth) and not several) or is_equiv(said, wanted) or said.lower() == wanted.lower():
        return True
    value, expected = closed_value(said), closed_value(wanted)
    if value is not None and expected is not None:
        return _same_value(value * _parts(answer, truth), expected, exact="." in said and "." in wanted)
    if re.search(UNPARSED, said) or re.search(UNPARSED, wanted):
        return False
    return _same_algebra(answer, truth) or _same_algebra(as_interval(said), as_interval(wanted))


def _parts(answer: str, truth: str) -> Number:
    """What an answer in per cent is divided by where the truth is in parts of one, and the other way round."""
    percent, expected = ("%" in text and closed_value(_normal(text)) is not None for text in (answer, truth))
    return 1 if percent == expected else Fraction(1, 100) if percent else 100


def _same_value(value: Number, expected: Number, *, exact: bool) -> bool:
    """Whether two numbers are equal; of a decimal and a root or fraction, to the six digits that people write."""
    if exact or value == expected:
        return value == expected
    return math.isclose(value, expected, rel_tol=1e-6) and max(abs(value), abs(expected)) < LARGEST_ROUNDED


def _same_algebra(answer: str, truth: str) -> bool:
    """Whether computer algebra finds two formulas the same; of one that it cannot read it takes no number out."""
    from math_verify import LatexExtractionConfig, parse, verify

    wanted, said = (parse(f"${text}$", extraction_config=[LatexExtractionConfig()]) for text in (truth, answer))
    return bool(wanted) and bool(said) and bool(verify(wanted, said))


def _normal(text: str) -> str:
    """An expression without units, degrees, currency, a name before `=`, separators of thousands and marks of its size."""
    text = text.replace("−", "-").replace("\\%", "%").replace("\\$", "").strip(" .$*")
    text = re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\\(?:left|right|displaystyle|!|,|;)(?![a-zA-Z])", "", text))
    text = re.sub(r"(?<=\d)(?:\{,\}|,(?!\s))(?=\d{3}(?!\d))", "", text)
    text = re.sub(
        r"(?<=[\w})])\s*(?:\\(?:text|mathrm|mbox|textrm)\s*{\s*[^{}()]*}(?:\^\s*{?\d}?)?|\^?\s*{?\\circ}?|°|%)\s*$",
        "",
        text,
    )
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf|textrm|mathbf)\s*{\s*([^{}]*?)\s*}", r"\1", text)
    text = re.sub(r"^\s*\(([A-Z])\)\s*$", r"\1", text)
    return re.sub(r"^\s*(?:[a-zA-Z]|\\[a-z]+|[a-zA-Z]\([a-z]\))\s*(?:=|\\in)\s*(?=[^=]+$)", "", text).strip()


def as_interval(text: str) -> str:
    """The interval that an inequality of one letter says; any other text as it is."""
    if match := BETWEEN.fullmatch(text):
        first, left, right, last = match.groups()
        (runs, open_left), (other, open_right) = SIGNS[left], SIGNS[right]
        if runs != other:
            return text
        ends = (first, open_left, last, open_right) if runs == "<" else (last, open_right, first, open_left)
        return _interval(*ends)
    if match := BEYOND.fullmatch(text):
        runs, is_open = SIGNS[match[1]]
        return (
            _interval("-\\infty", True, match[2], is_open)
            if runs == "<"
            else _interval(match[2], is_open, "\\infty", True)
        )
    return text


def _interval(low: str, open_low: bool, high: str, open_high: bool) -> str:
    return f"{'(' if open_low else '['}{low},{high}{')' if open_high else ']'}"
