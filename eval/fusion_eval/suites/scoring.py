"""Filters and `process_results` functions that the files in task_files/ name: `fusion.grading` with lm-eval's signatures.

A filter takes the responses to each document, and the documents. `process_results` takes a document and its filtered
responses, and returns metrics by name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from fusion.grading import answers, sandbox
from fusion.grading.statements import without_thoughts

logger = logging.getLogger(__name__)

SCORING_VERSION = 4
"""Raised with every change of what counts as right; part of each task's version, and so of results and of kept answers."""

Doc = dict[str, Any]
Responses = Sequence[Sequence[str]]
Filtered = list[list[Any]]


def _as_filter(extract: Callable[[str], str | None]) -> Callable[[Responses, Sequence[Doc]], Filtered]:
    def filter(responses: Responses, docs: Sequence[Doc]) -> Filtered:
        return [list(map(extract, of_doc)) for of_doc in responses]

    return filter


def _with_doc(extract: Callable[[str, Doc], str | None]) -> Callable[[Responses, Sequence[Doc]], Filtered]:
    def filter(responses: Responses, docs: Sequence[Doc]) -> Filtered:
        return [[extract(text, doc) for text in of_doc] for of_doc, doc in zip(responses, docs, strict=True)]

    return filter


def _choices(doc: Doc) -> list[str]:
    """Texts of the options a question has."""
    choices = doc.get("choices", [])
    return list(choices["text"] if isinstance(choices, dict) else choices)


def _option(text: str, doc: Doc) -> str | None:
    choices = _choices(doc)
    return answers.extract_option(text, "ABCDE"[: len(choices) or 4], choices)


def _tested_code(text: str, doc: Doc) -> str:
    """The program of an answer to MBPP, known by the function that the assertions call."""
    return answers.extract_code(text, answers.names_in_tests("\n".join(doc["test_list"])))


def _what_is_said(text: str) -> str:
    """An answer without its thoughts; one that has none as it is, for its blank lines count too."""
    said = without_thoughts(text)
    return text if said == text else said.lstrip()


extract_number = _as_filter(answers.extract_number)
extract_boxed = _as_filter(answers.extract_boxed)
extract_final_answer = _as_filter(answers.extract_final_answer)
extract_formula = _as_filter(answers.extract_formula)
extract_phrase = _as_filter(answers.extract_phrase)
extract_span = _as_filter(answers.extract_span)
extract_value = _as_filter(answers.extract_value)
extract_said = _as_filter(_what_is_said)
extract_option = _with_doc(_option)
extract_code = _with_doc(_tested_code)
extract_function = _with_doc(lambda text, doc: answers.complete_function(text, doc["prompt"], doc["entry_point"]))


def gsm8k(doc: Doc, filtered: Sequence[str | None]) -> dict[str, float]:
    """Whether the number is that behind `####`."""
    return {"exact_match": float(answers.same_number(filtered[0], doc["answer"].split("####")[-1]))}


def math(doc: Doc, filtered: Sequence[str | None]) -> dict[str, float]:
    """Whether the boxed expression is that of the worked solution."""
    return {"exact_match": float(answers.same_expression(filtered[0], answers.extract_boxed(doc["solution"]) or ""))}


def theoremqa(doc: Doc, filtered: Sequence[str | None]) -> dict[str, float]:
    """Whether the answer has the true value: floats within 4%, all else exactly; see `grading.answers.same_value`."""
    return {"exact_match": float(answers.same_value(filtered[0], doc["answer"], doc["answer_type"]))}


def bbh(doc: Doc, filtered: Sequence[str | None]) -> dict[str, float]:
    """Whether the phrase is the target, small and capital letters aside."""
    return {"exact_match": float(answers.same_phrase(filtered[0], doc["target"]))}


def drop(doc: Doc, filtered: Sequence[str | None]) -> dict[str, float]:
    """Whether all spans of one of the true answers stand in the answer, in any order."""
    return {"exact_match": float(answers.same_spans(filtered[0], doc["answers"]))}


def arc(doc: Doc, filtered: Sequence[str | None]) -> dict[str, float]:
    """Whether the letter is that of the key, which may be a number in the data."""
    return {"exact_match": float(filtered[0] == "ABCDE"[doc["choices"]["label"].index(doc["answerKey"])])}


def mmlu(doc: Doc, filtered: Sequence[str | None]) -> dict[str, float]:
    """Whether the letter is that of the answer's index."""
    return {"exact_match": float(filtered[0] == "ABCD"[doc["answer"]])}


def hellaswag(doc: Doc, filtered: Sequence[str | None]) -> dict[str, float]:
    """Whether the letter is that of the true ending."""
    return {"exact_match": float(filtered[0] == "ABCD"[doc["gold"]])}


def humaneval(doc: Doc, filtered: Sequence[str]) -> dict[str, float]:
    """Whether the program passes the tests."""
    return {"pass@1": _passes(filtered[0], f"{doc['test']}\ncheck({doc['entry_point']})\n")}


def mbpp(doc: Doc, filtered: Sequence[str]) -> dict[str, float]:
    """Whether the program passes the assertions shown, and whether it also passes all further ones there are.

    Further tests are those of EvalPlus (`test`) where the data have them, else the challenge tests.
    """
    imports = "\n".join(doc.get("test_imports") or [])
    further = [doc["test"]] if doc.get("test") else doc.get("challenge_test_list") or []
    setup = [imports, doc.get("test_setup_code") or ""]
    base = _passes(filtered[0], "\n".join([*setup, *doc["test_list"]]), imports)
    if not (base and further):
        return {"pass@1_base": base, "pass@1": base}
    return {"pass@1_base": base, "pass@1": _passes(filtered[0], "\n".join([*setup, *further]), imports)}


def _passes(program: str, tests: str, imports: str = "") -> float:
    result = sandbox.judge_program(program, tests, imports=imports)
    if result.ran_inside:
        logger.warning(
            "A program decided something of its verdict itself (passed: %s): %s", result.passed, result.ran_inside
        )
    return float(result.passed)
