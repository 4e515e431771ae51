"""Extraction of the final answer from a model's text, and comparison with the truth: text in, text or bool out.

An extraction returns None where the text holds nothing of the kind; that counts as wrong and is never an error.
"""

from __future__ import annotations

import json
import math
import re
import string
from fractions import Fraction

NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+"


def extract_boxed(text: str) -> str | None:
    r"""Extract the contents of the last `\boxed{...}` whose braces are balanced."""
    for start in reversed([match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*{", text)]):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            if depth == 0:
                return text[start:end].strip()
    return None


def extract_final_answer(text: str) -> str | None:
    """Extract what follows the last "answer is" or "Answer:", to the end of its line, without a full stop or bold marks."""
    matches = re.findall(r"answer(?:\s+is|\s*:)\s*:?\**\s*([^\n]+)", text, flags=re.IGNORECASE)
    return matches[-1].strip(" *$`").removesuffix(".").strip(" *$`") or None if matches else None


def extract_number(text: str) -> str | None:
    """Extract the last number of the last box, or of the text if there is none, without currency and thousands separators."""
    matches = re.findall(NUMBER, extract_boxed(text) or text)
    return matches[-1].replace(",", "").replace("$", "") if matches else None


def extract_option(text: str, letters: str = "ABCD") -> str | None:
    """Extract the option an answer names: after its last "answer is", else the first letter by itself.

    An `A` before a word in small letters is taken for the article.
    """
    alone = rf"(?<![A-Za-z])([{letters}])(?![A-Za-z'’])(?! [a-z])"
    for part in (extract_final_answer(text), text):
        if part and (match := re.search(alone, part)):
            return match[1]
    return None


def extract_phrase(text: str) -> str | None:
    """Extract the final answer of a chain of thought; of an option such as `(B) red` the letter in its brackets alone."""
    answer = extract_final_answer(text)
    bracketed = answer and re.match(r"(\([A-Z]\))", answer)
    return bracketed[1] if bracketed else answer


def extract_code(text: str) -> str:
    """Extract the last block between three backticks, or all text where there is none; a block that is never closed counts."""
    blocks = re.findall(r"```[ \t]*[\w+-]*[ \t]*\r?\n(.*?)(?:```|\Z)", text, flags=re.DOTALL)
    return blocks[-1] if blocks else text


def complete_function(text: str, prompt: str, name: str) -> str:
    """Make a program of an answer to "complete this code": prompt and answer, or the answer where it defines `name` itself.

    A body is put behind the prompt as it is; what follows it at the left margin is cut off.
    """
    code = extract_code(text)
    if re.search(rf"^\s*(?:async\s+)?def\s+{re.escape(name)}\b", code, flags=re.MULTILINE):
        return f"{prompt}\n    pass\n\n{code}"  # the prompt brings its imports and helpers; the later definition holds
    return prompt + re.split(r"\n(?=\S)", code if code[:1].isspace() else "    " + code)[0] + "\n"


def same_number(answer: str | None, truth: str) -> bool:
    """Whether both are the same number: 18, 18.0 and 18.00 are."""
    expected = extract_number(truth)
    return answer is not None and expected is not None and _rational(answer) == _rational(expected)


def same_expression(answer: str | None, truth: str) -> bool:
    """Whether two LaTeX expressions agree: as text, normalised by the benchmark's own rules, or by computer algebra."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv
    from math_verify import parse, verify

    if not answer:
        return False
    return is_equiv(answer, truth) or bool(verify(parse(f"${truth}$"), parse(f"${answer}$")))


def same_words(answer: str | None, truths: list[str]) -> bool:
    """Whether the words of any of the true answers stand together in the answer, articles and punctuation aside."""
    padded = f" {_words(answer or '')} "
    return any(words and f" {words} " in padded for words in map(_words, truths))


def same_value(answer: str | None, truth: str, answer_type: str) -> bool:
    """Whether an answer has the value `truth` (in JSON) of the type `answer_type`, one of TheoremQA's `ANSWER_TYPES`.

    Floats agree within 4%, whole numbers exactly, lists element by element. Raises ValueError for another type.
    """
    if answer_type not in ANSWER_TYPES:
        raise ValueError(f"Unknown type of answer {answer_type!r} in TheoremQA; known are {', '.join(ANSWER_TYPES)}.")
    value = json.loads(truth)
    if answer is None:
        return False
    if answer_type == "bool":
        match = re.search(r"\b(true|yes|false|no)\b", answer.lower())
        return match is not None and (match[1] in ("true", "yes")) == value
    if answer_type == "option":
        match = re.search(r"\(?\b([a-z])\b\)?", answer.lower())
        return match is not None and match[1] == str(value).strip("() ").lower()
    numbers = _values(answer)
    if not isinstance(value, list):
        numbers = numbers[-1:] if "=" in answer else numbers[:1]
    truths, loose = value if isinstance(value, list) else [value], "float" in answer_type
    return len(numbers) == len(truths) and all(_close(a, b, loose) for a, b in zip(numbers, truths, strict=True))


ANSWER_TYPES = ("bool", "option", "integer", "float", "list of integer", "list of float")


def _close(a: float, b: int | float, loose: bool) -> bool:
    return math.isclose(a, b, rel_tol=0.04, abs_tol=1e-9) if loose else math.isclose(a, b, abs_tol=1e-9)


def _values(text: str) -> list[float]:
    r"""All numbers in order: decimal, with exponent, as a/b, \frac{a}{b}, or in per cent."""
    text = re.sub(r"\\d?frac{([^{}]+)}{([^{}]+)}", r"\1/\2", text.replace(",\\!", "").replace("\\times", "x"))
    if not re.search(r"[\[(]", text):  # in a list a comma parts two numbers, elsewhere thousands
        text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\s*[x*×]\s*10\s*\^\s*{?\s*([-+]?\d+)\s*}?", r"e\1", text)
    matches = re.findall(r"(-?\d*\.?\d+(?:e[-+]?\d+)?)(?:\s*/\s*(-?\d*\.?\d+))?(\s*\\?%)?", text, flags=re.IGNORECASE)
    return [
        float(top) / (float(bottom) if bottom and float(bottom) else 1.0) / (100 if percent else 1)
        for top, bottom, percent in matches
    ]


def _rational(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _words(text: str) -> str:
    """Small letters, no articles; punctuation and hyphens part words; numbers in one form."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.lower())
    text = re.sub(rf"(?!(?<=\d)\.(?=\d))[{re.escape(string.punctuation)}]", " ", text)
    words = [word for word in text.split() if word not in ("a", "an", "the")]
    return " ".join(str(value) if (value := _rational(word)) is not None else word for word in words)
