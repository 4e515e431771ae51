"""Answers as models write them, and the verdict of a person: each extractor with its comparison against a table in answers/.

Rows with `model` are what a small model wrote to a question of a benchmark; `lm_eval` is the verdict of lm-eval's own filter.
"""

import json
from pathlib import Path

import pytest

from fusion.grading import answers
from fusion_eval.suites import scoring
from tests.helpers import benchmark_files, lm_eval_verdicts

TABLES = Path(__file__).parent / "answers"


def rows(table):
    return [json.loads(line) for line in (TABLES / f"{table}.jsonl").read_text(encoding="utf-8").splitlines()]


def option(row):
    return answers.extract_option(row["text"], row.get("letters", "ABCD"), row.get("choices"))


def number(row):
    return answers.same_number(answers.extract_number(row["text"]), row["truth"])


def formula(row):
    return answers.same_expression(answers.extract_formula(row["text"]), row["truth"])


def value(row):
    return answers.same_value(answers.extract_value(row["text"]), row["truth"], row["type"])


def span(row):
    return answers.same_spans(answers.extract_span(row["text"]), row["truths"])


def phrase(row):
    return answers.same_phrase(answers.extract_phrase(row["text"]), row["truth"])


def program(row):
    doc = {"prompt": row["prompt"], "entry_point": row["name"], "test": row["tests"]}
    return scoring.humaneval(doc, scoring.extract_function([[row["text"]]], [doc])[0])["pass@1"] == 1.0


JUDGES = {"option": option, "number": number, "formula": formula, "value": value, "span": span, "phrase": phrase}


def test_each_table_has_a_judge_and_forty_answers_or_more():
    tables = sorted(file.stem for file in TABLES.glob("*.jsonl"))
    assert tables == sorted([*JUDGES, "program"])
    assert all(len(rows(table)) >= 40 for table in tables)


@pytest.mark.parametrize("table", JUDGES)
def test_the_verdict_is_that_of_a_person(table):
    assert [row for row in rows(table) if JUDGES[table](row) != row["right"]] == []


def test_a_program_is_found_in_every_form_and_a_wrong_one_still_fails():
    assert [row["form"] for row in rows("program") if program(row) != row["right"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("table", lm_eval_verdicts.TASKS)
def test_the_verdict_noted_beside_is_lm_evals(table, tmp_path):
    subtask = lm_eval_verdicts.subtask_of(table, benchmark_files.benchmarks(tmp_path))
    found = [lm_eval_verdicts.verdict(table, subtask, row) for row in rows(table)]
    assert [row for row, verdict in zip(rows(table), found, strict=True) if verdict != row["lm_eval"]] == []
