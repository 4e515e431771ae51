"""What the task files in `tasks/` call: `answers` and `sandbox` in the shape that lm-eval wants.

A filter takes, for each document, the list of texts a model wrote. A scorer takes a document and what the filter left
of the first text, and gives measures by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fusion.grading import answers, sandbox

Document = dict[str, Any]
Texts = list[list[Any]]


def _each(extract: Callable[[str], str | None]) -> Callable[[Sequence[Sequence[str]], Sequence[Document]], Texts]:
    def filter(texts: Sequence[Sequence[str]], docs: Sequence[Document]) -> Texts:
        return [[extract(text) for text in given] for given in texts]

    return filter


find_number = _each(answers.number)
find_boxed = _each(answers.boxed)
find_final = _each(answers.final)
find_phrase = _each(answers.phrase)
find_option = _each(answers.option)
find_code = _each(answers.code)


def find_option_of_five(texts: Sequence[Sequence[str]], docs: Sequence[Document]) -> Texts:
    """As `find_option`, among as many letters as the question has choices."""
    letters = ["ABCDE"[: len(doc["choices"]["text"])] for doc in docs]
    return [[answers.option(text, among) for text in given] for given, among in zip(texts, letters, strict=True)]


def find_function(texts: Sequence[Sequence[str]], docs: Sequence[Document]) -> Texts:
    """The program that HumanEval tests."""
    return [
        [answers.function(text, doc["prompt"], doc["entry_point"]) for text in given]
        for given, doc in zip(texts, docs, strict=True)
    ]


def gsm8k(doc: Document, found: Sequence[str | None]) -> dict[str, float]:
    """Whether the number is that behind `####`."""
    return {"exact_match": float(answers.same_number(found[0], doc["answer"].split("####")[-1]))}


def math(doc: Document, found: Sequence[str | None]) -> dict[str, float]:
    """Whether the boxed expression is that of the worked solution."""
    return {"exact_match": float(answers.same_mathematics(found[0], answers.boxed(doc["solution"]) or ""))}


def theoremqa(doc: Document, found: Sequence[str | None]) -> dict[str, float]:
    """Whether the value is right for its type."""
    return {"exact_match": float(answers.same_value(found[0], doc["answer"], doc["answer_type"]))}


def bbh(doc: Document, found: Sequence[str | None]) -> dict[str, float]:
    """Whether the phrase is the target, small and capital letters aside."""
    return {"exact_match": float((found[0] or "").lower() == doc["target"].strip().lower())}


def drop(doc: Document, found: Sequence[str | None]) -> dict[str, float]:
    """Whether one of the true answers stands in the answer."""
    truths = [" ".join(truth) for truth in doc["answers"]]
    return {"exact_match": float(answers.same_words(found[0], truths))}


def arc(doc: Document, found: Sequence[str | None]) -> dict[str, float]:
    """Whether the letter is that of the key, which may be a number in the data."""
    return {"exact_match": float(found[0] == "ABCDE"[doc["choices"]["label"].index(doc["answerKey"])])}


def mmlu(doc: Document, found: Sequence[str | None]) -> dict[str, float]:
    """Whether the letter is that of the answer's index."""
    return {"exact_match": float(found[0] == "ABCD"[doc["answer"]])}


def hellaswag(doc: Document, found: Sequence[str | None]) -> dict[str, float]:
    """Whether the letter is that of the true ending."""
    return {"exact_match": float(found[0] == "ABCD"[doc["gold"]])}


def humaneval(doc: Document, found: Sequence[str]) -> dict[str, float]:
    """Whether the program passes the tests."""
    return {"pass@1": _passes(f"{found[0]}\n{doc['test']}\ncheck({doc['entry_point']})\n")}


def mbpp(doc: Document, found: Sequence[str]) -> dict[str, float]:
    """Whether the program passes the assertions shown, and whether it also passes all further ones there are.

    Further tests are those of EvalPlus (`test`) where the data have them, else the challenge tests.
    """
    setup = [*(doc.get("test_imports") or []), found[0], doc.get("test_setup_code") or ""]
    further = [doc["test"]] if doc.get("test") else doc.get("challenge_test_list") or []
    base = _passes("\n".join([*setup, *doc["test_list"]]))
    return {"pass@1_base": base, "pass@1": base and _passes("\n".join([*setup, *further])) if further else base}


def _passes(program: str) -> float:
    return float(sandbox.run(program).passed)
