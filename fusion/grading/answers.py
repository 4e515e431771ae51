"""Extraction of the final answer from a model's text, and comparison with the truth: text in, text or bool out.

An extraction returns None where the text holds nothing of the kind; that counts as wrong and is never an error.
`tests/field/answers/` holds, for each, answers as models write them and the verdict of a person.
"""

from fusion.grading.formulas import extract_formula, same_expression
from fusion.grading.numbers import extract_number, same_number
from fusion.grading.options import extract_option
from fusion.grading.phrases import extract_phrase, same_phrase
from fusion.grading.programs import complete_function, extract_code, names_in_tests
from fusion.grading.spans import extract_span, same_spans, same_words, split_spans
from fusion.grading.statements import extract_boxed, extract_final_answer, without_thoughts
from fusion.grading.values import ANSWER_TYPES, extract_value, same_value

__all__ = [
    "ANSWER_TYPES",
    "complete_function",
    "extract_boxed",
    "extract_code",
    "extract_final_answer",
    "extract_formula",
    "extract_number",
    "extract_option",
    "extract_phrase",
    "extract_span",
    "extract_value",
    "names_in_tests",
    "same_expression",
    "same_number",
    "same_phrase",
    "same_spans",
    "same_value",
    "same_words",
    "split_spans",
    "without_thoughts",
]
