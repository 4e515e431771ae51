"""The expression that a solution of MATH ends with, and whether two expressions are the same."""

from __future__ import annotations

import re

from fusion.grading.expressions import evaluate
from fusion.grading.statements import extract_boxed, extract_final_answer, last_statement, without_invented_question

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
    """Whether two LaTeX expressions agree: as text by the benchmark's own rules, by computer algebra, or in value."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv
    from math_verify import parse, verify

    if not answer:
        return False
    said, wanted = _normal(answer), _normal(truth)
    if is_equiv(answer, truth) or is_equiv(said, wanted) or said.lower() == wanted.lower():
        return True
    if bool(verify(parse(f"${truth}$"), parse(f"${answer}$"))) or bool(
        verify(parse(f"${wanted}$"), parse(f"${said}$"))
    ):
        return True
    value, expected = evaluate(said), evaluate(wanted)
    return (
        value is not None
        and expected is not None
        and (value == expected or ("%" in answer and value == 100 * expected))
    )


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
