"""Benchmarks from files on disk instead of the hub: JSON lines, plain or in gzip, in one folder for each benchmark.

    DIR/arc_challenge/test     question, choices, labels, answerKey
        bbh/bbh                task, input, target
        drop/dev               passage, question, answers (each a text, or a list of its spans)
        gsm8k/test, train      question, answer
        hellaswag/validation   ctx ("<activity>: <context>"), endings, label
        humaneval/humaneval    task_id, prompt, entry_point, canonical_solution, test
        ifeval/ifeval          key, prompt, instruction_id_list, kwargs
        math/test              problem, level, type, solution
        mbpp/mbpp              task_id, text, code, test_list, test_setup_code, challenge_test_list, split
        mbpp/mbppplus          as EvalPlus has it (task_id, prompt, code, test_imports, test_list, test); preferred if there
        mmlu/test, dev         subject, question, choices, answer (a letter)
        theoremqa/theoremqa    question, answer, answer_type, picture
        wikitext2/valid        text

Each loader gives documents in the form they have on the hub, so that a task is the same with and without local files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from fusion.grading.answers import split_spans

Rows = list[dict[str, Any]]


def load(benchmark: str, folder: Path, subset: str | None = None) -> DatasetDict:
    """Load the splits of a benchmark, or of one of its subsets, named as on the hub.

    Raises FileNotFoundError for a file that is missing, ValueError for a subset or field the files do not have.
    """
    read = _reader(benchmark)
    try:
        splits = read(folder, subset)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = (
            f"lack the field {error}"
            if isinstance(error, KeyError)
            else f"hold another type than they should ({error})"
        )
        raise ValueError(f"{folder}: rows of {benchmark} {what}; see fusion_eval/suites/local_data.py.") from error
    if empty := [split for split, rows in splits.items() if not rows]:
        raise ValueError(
            f"{folder}: {benchmark} has no rows of {subset} in {', '.join(empty)}. Add them or leave it out."
        )
    return DatasetDict({split: Dataset.from_list(rows) for split, rows in splits.items()})


def fingerprint(benchmark: str, folder: Path) -> str:
    """Hash the files that a benchmark may read, to 16 hex digits."""
    _reader(benchmark)
    digest = hashlib.sha256()
    files = [_file(folder, name) for name in FILES[benchmark]]
    for file in [file for file in files if file is not None]:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _reader(benchmark: str) -> Callable[[Path, str | None], dict[str, Rows]]:
    if benchmark not in BENCHMARKS:
        raise ValueError(
            f"There is no form of files for the benchmark {benchmark}; with --data there are {', '.join(BENCHMARKS)}. Leave "
            "--data out to read it from the hub."
        )
    return BENCHMARKS[benchmark]


def theoremqa_docs(dataset: Dataset) -> Dataset:
    """Documents that need no picture, from the hub's columns or from local files; their answer is JSON."""
    hub = {"Question": "question", "Answer": "answer", "Answer_type": "answer_type", "Picture": "picture"}
    dataset = dataset.rename_columns({name: local for name, local in hub.items() if name in dataset.column_names})
    dataset = dataset.filter(lambda doc: doc["picture"] is None)
    return dataset.map(lambda doc: {"answer": _as_json(doc["answer"], doc["answer_type"])})


def _as_json(answer: str, kind: str) -> str:
    """The hub spells truth values as Python does and options without quotes."""
    if kind == "bool":
        return answer.lower()
    return json.dumps(answer) if kind == "option" and not answer.startswith('"') else answer


def _arc(folder: Path, _subset: str | None) -> dict[str, Rows]:
    return {
        "test": [
            {**row, "choices": {"text": row["choices"], "label": row["labels"]}}
            for row in _rows(folder, "arc_challenge/test")
        ]
    }


def _bbh(folder: Path, subset: str | None) -> dict[str, Rows]:
    return {"test": [row for row in _rows(folder, "bbh/bbh") if row["task"] == subset]}


def _drop(folder: Path, _subset: str | None) -> dict[str, Rows]:
    return {"validation": [_drop_row(row) for row in _rows(folder, "drop/dev")]}


def _drop_row(row: dict[str, Any]) -> dict[str, Any]:
    no_date = {"day": "", "month": "", "year": ""}
    answers = [a if isinstance(a, list) else split_spans(a, row["passage"]) for a in row["answers"]]
    others = {"number": [""] * len(answers), "date": [no_date] * len(answers), "spans": answers}
    answer = {"number": "", "date": no_date, "spans": answers[0]}
    key = hashlib.sha256((row["passage"] + row["question"]).encode()).hexdigest()[:16]
    return {**row, "answers": answers, "query_id": key, "answer": answer, "validated_answers": others}


def _gsm8k(folder: Path, _subset: str | None) -> dict[str, Rows]:
    return {split: _rows(folder, f"gsm8k/{split}") for split in ("train", "test")}


def _hellaswag(folder: Path, _subset: str | None) -> dict[str, Rows]:
    rows = [(*row["ctx"].partition(": ")[::2], row) for row in _rows(folder, "hellaswag/validation")]
    return {
        "validation": [
            {
                "activity_label": activity,
                "ctx_a": context,
                "ctx_b": "",
                "endings": row["endings"],
                "label": str(row["label"]),
            }
            for activity, context, row in rows
        ]
    }


def _math(folder: Path, subset: str | None) -> dict[str, Rows]:
    rows = _rows(folder, "math/test")
    return {"test": [row for row in rows if row["type"].lower().replace("&", "and").replace(" ", "_") == subset]}


def _mbpp(folder: Path, _subset: str | None) -> dict[str, Rows]:
    return {"test": [row for row in _rows(folder, "mbpp/mbpp") if row["split"] == "test"]}


def _mbpp_plus(folder: Path, subset: str | None) -> dict[str, Rows]:
    return {"test": _rows(folder, "mbpp/mbppplus")} if _file(folder, "mbpp/mbppplus") else _mbpp(folder, subset)


def _mmlu(folder: Path, subset: str | None) -> dict[str, Rows]:
    return {
        split: [
            {**row, "answer": _letter(folder, row["answer"])}
            for row in _rows(folder, f"mmlu/{split}")
            if row["subject"] == subset
        ]
        for split in ("test", "dev")
    }


def _letter(folder: Path, answer: Any) -> int:
    if answer not in list("ABCD"):
        raise ValueError(f"{folder}: an answer of mmlu is {answer!r}; it should be one of the letters A, B, C and D.")
    return "ABCD".index(answer)


def _theoremqa(folder: Path, _subset: str | None) -> dict[str, Rows]:
    return {"test": [{**row, "answer": json.dumps(row["answer"])} for row in _rows(folder, "theoremqa/theoremqa")]}


def _single_split(split: str, name: str) -> Callable[[Path, str | None], dict[str, Rows]]:
    return lambda folder, _subset: {split: _rows(folder, name)}


BENCHMARKS: dict[str, Callable[[Path, str | None], dict[str, Rows]]] = {
    "arc_challenge": _arc,
    "bbh": _bbh,
    "drop": _drop,
    "gsm8k": _gsm8k,
    "hellaswag": _hellaswag,
    "humaneval": _single_split("test", "humaneval/humaneval"),
    "ifeval": _single_split("train", "ifeval/ifeval"),
    "math": _math,
    "mbpp": _mbpp,
    "mbpp_plus": _mbpp_plus,
    "mmlu": _mmlu,
    "theoremqa": _theoremqa,
    "wikitext2": _single_split("test", "wikitext2/valid"),
}

FILES: dict[str, list[str]] = {
    "arc_challenge": ["arc_challenge/test"],
    "bbh": ["bbh/bbh"],
    "drop": ["drop/dev"],
    "gsm8k": ["gsm8k/test", "gsm8k/train"],
    "hellaswag": ["hellaswag/validation"],
    "humaneval": ["humaneval/humaneval"],
    "ifeval": ["ifeval/ifeval"],
    "math": ["math/test"],
    "mbpp": ["mbpp/mbpp"],
    "mbpp_plus": ["mbpp/mbppplus", "mbpp/mbpp"],
    "mmlu": ["mmlu/test", "mmlu/dev"],
    "theoremqa": ["theoremqa/theoremqa"],
    "wikitext2": ["wikitext2/valid"],
}


def _file(folder: Path, name: str) -> Path | None:
    return next((file for end in (".jsonl.gz", ".jsonl") if (file := folder / f"{name}{end}").is_file()), None)


@cache
def _rows(folder: Path, name: str) -> Rows:
    file = _file(folder, name)
    if file is None:
        raise FileNotFoundError(
            f"{folder / name}.jsonl.gz is missing (also without .gz). Put it there, take tasks whose data are there, or "
            "leave --data out to read from the hub."
        )
    return list(read_rows(file))


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines, in gzip where the name ends in .gz. Raises ValueError that names a line which is no JSON object."""
    number = 0
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _row(file, number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is cut or damaged after line {number} ({error}); copy it again.") from error


def _row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file}, line {number}, is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{file}, line {number}: a row should be an object with fields, got {line.strip()[:60]}.")
    return row
