r"""The value of a number as models write it: LaTeX or plain, with units, currency, separators, roots, powers and constants.

`2\pi`, `√2`, `2^{10}`, `\frac{36}{2}`, `9{,}500`, `18 \text{ cm}^2`, `−5`, `1.2 × 10^3`, `25\%`, `\binom{5}{2}`, `5!`.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeGuard

from fusion.grading.notation import SCALES, plain_number_text, spelled_number

Number = int | float | Fraction
LARGEST_FACTORIAL, MOST_BITS = 1_500, 14_000
"""What is still worked out exactly: numbers of some 4,000 digits, which take no time and can be written down."""
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "sqrt": math.sqrt, "root": lambda n, x: x ** (1 / n), "ln": math.log, "log": math.log, "logb": lambda b, x: math.log(x, b),
    "exp": math.exp, "sin": math.sin, "cos": math.cos, "tan": math.tan, "arctan": math.atan, "arcsin": math.asin,
    "arccos": math.acos, "abs": abs, "binom": lambda n, k: math.comb(_small(n), _small(k)),
    "factorial": lambda n: math.factorial(_small(n)),
}  # fmt: skip
CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf}


def evaluate(text: str) -> Number | None:
    """The value of the whole text as one number or closed expression, after its last `=`; None where it is none.

    A unit, a currency, per cent or words behind the number are left out.
    """
    plain = plain_number_text(text).strip().rstrip(".;:,").strip()
    for part in reversed(plain.split("=")):
        if (value := _value(part)) is not None:
            return value
    return None


def _value(text: str) -> Number | None:
    text = re.sub(
        r"^\s*(?:about|approximately|approx\.?|roughly|around|only|a total of|exactly|US|USD|Rs\.?)\s*|[$€£¥₹]",
        "",
        text.strip(),
        flags=re.IGNORECASE,
    )
    text = re.sub(r"(?<![\d.])(\d{1,3}(?:,\d{3})+)(?!\d)", lambda match: match[1].replace(",", ""), text)
    text = re.sub(r"(?<![\d.])(\d{1,3}(?: \d{3})+)(?!\d)", lambda match: match[1].replace(" ", ""), text)
    if (spelled := _spelled(text)) is not None:
        return spelled
    if scaled := re.fullmatch(
        r"(-?\d+(?:\.\d+)?)\s*(k|thousand|million|billion|trillion)\b.*", text, flags=re.IGNORECASE | re.DOTALL
    ):
        return Fraction(scaled[1]) * SCALES[scaled[2].lower()]
    for candidate in (text, _without_words(text)):
        if candidate and (value := _parse(candidate)) is not None:
            return value
    return None


def closed_value(text: str) -> Number | None:
    """The value of a text that is one number or closed expression, with at most a unit in words behind it.

    None where a letter, a relation or a second number is left, which `evaluate` would pass over.
    """
    plain = plain_number_text(text).strip().rstrip(".;:,").strip()
    plain = re.sub(r"(?<=\d)\s+(?!(?:or|and|to)\b)[a-z]{3,}(?:\s+[a-z]{2,})?$", "", plain)
    plain = re.sub(r"(?<![\d.])(\d{1,3}(?:,\d{3})+)(?!\d)", lambda match: match[1].replace(",", ""), plain)
    return None if "_" in plain else _parse(re.sub(r"[$€£¥₹]", "", plain))


def _spelled(text: str) -> int | None:
    """A number in words at the beginning: `eleven`, `twenty-one apples`, with at most two words behind it."""
    words = re.findall(r"[a-z]+", text.lower())
    if not words or re.search(r"\d", text):
        return None
    value, read = spelled_number(words)
    return value if read and len(words) <= read + 2 else None


def _without_words(text: str) -> str:
    """The expression at the beginning without units or words behind it: `18 cm^2`, `5 apples`, `3/4 of it`."""
    match = re.match(
        r"(?:[\s\d.+\-*/^(){},!]|(?:pi|sqrt|root|binom|ln|log|exp|sin|cos|tan|inf)\b|\\(?:pi|ln|log|exp|sin|cos|tan|infty)\b|(?<![A-Za-z])e(?![A-Za-z])|(?<=\d)[eE](?=[-+]?\d))+",
        text,
    )
    rest = text[match.end() :] if match else ""
    if match is None or re.match(r"[\[_]", rest):
        return ""
    return match[0].strip().rstrip("({,*/+-^ ")


def _parse(text: str) -> Number | None:
    """Evaluate an expression of numbers, constants and functions alone."""
    code = re.sub(r"\\infty\b", " inf ", text)
    code = re.sub(
        r"\\?log_?{?(\d+|e)}?\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?))", lambda m: f" logb({m[1]},{m[2] or m[3]})", code
    )
    code = re.sub(r"\\(pi|ln|log|exp|sin|cos|tan|arctan|arcsin|arccos)\b", r" \1 ", code)
    code = re.sub(r"\b(ln|log|exp|sin|cos|tan|sqrt)\s+(\d+(?:\.\d+)?|pi|e)\b", r"\1(\2)", code)
    code = re.sub(r"\^\s*{([^{}]*)}", r"**(\1)", code).replace("^", "**").replace("{", "(").replace("}", ")")
    code = re.sub(r"(?<=[\d.])\s*[x]\s*(?=10\*\*)", "*", code)
    code = re.sub(r"(\d+)\s*!(?!=)", r"factorial(\1)", code)
    code = re.sub(r"(?<![\w.])(\d+)\s+\(?(\d+)\s*/\s*(\d+)\)?", r"(\1+\2/\3)", code)  # 3 1/2
    code = re.sub(r"(?<![\w.])0+(?=\d)", "", code)
    code = re.sub(
        r"(?<=[\d)])\s*(?=\(|pi\b|e\b(?![-+]?\d)|sqrt|root|binom|ln\b|log|exp|sin|cos|tan)|(?<=\))\s*(?=[\w(])|(?<=\bpi)\s+(?=[\w(])(?!\()",
        "*",
        code,
    )
    try:
        return _finite(_walk(ast.parse(code.strip(), mode="eval").body))
    except (SyntaxError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError, MemoryError):
        return None


OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: lambda a, b: Fraction(a) / Fraction(b),
}  # fmt: skip


def _walk(node: ast.AST) -> Number:
    """The value of a parsed expression; raises what `_parse` catches for anything else than numbers."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return Fraction(repr(node.value)) if isinstance(node.value, float) else node.value
    if isinstance(node, ast.Name):
        return CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_walk(node.operand) if isinstance(node.op, ast.USub) else _walk(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _power(_walk(node.left), _walk(node.right))
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](_walk(node.left), _walk(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return FUNCTIONS[node.func.id](*map(_walk, node.args))
    raise ValueError("not a number")


def _power(base: Number, exponent: Number) -> Number:
    if abs(exponent) * math.log2(max(2, abs(base.numerator), base.denominator) if _exact(base) else 2) > MOST_BITS:
        raise OverflowError
    value = base**exponent
    return value if isinstance(value, int | float | Fraction) else math.nan


def _exact(value: Number) -> TypeGuard[int | Fraction]:
    return isinstance(value, int | Fraction)


def _small(number: Number) -> int:
    """A whole number whose factorial is worked out; raises what `_parse` catches for any other."""
    if not _exact(number) or number != int(number) or abs(number) > LARGEST_FACTORIAL:
        raise ValueError("too large, or not whole")
    return int(number)


def _finite(value: Number) -> Number | None:
    if _exact(value):
        return value if max(value.numerator.bit_length(), value.denominator.bit_length()) <= MOST_BITS else None
    return value if math.isfinite(value) or value == math.inf else None
