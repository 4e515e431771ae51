"""Every task on the benchmarks' real files, in a folder named by FUSION_DATA: each runs offline and gives its measure."""

import os
from pathlib import Path

import pytest

from fusion.models.loading import ModelRef
from fusion_eval.runners.evaluate import BenchmarkSettings, evaluate
from fusion_eval.statistics.comparison import summarise
from fusion_eval.suites.local_data import BENCHMARKS, load
from fusion_eval.suites.suite import load_suite
from fusion_eval.suites.tasks import load_subtasks

FOLDER = os.environ.get("FUSION_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOLDER is None, reason="FUSION_DATA names no folder with the benchmarks' files"),
]


@pytest.mark.parametrize("suite", ["infi11", "infi11-stock", "quick"])
def test_every_task_gives_its_measure(suite, llama, tmp_path):
    how = BenchmarkSettings(data=Path(str(FOLDER)), limit=20, max_new_tokens=8, allow_code_execution=True)
    result = evaluate(
        ModelRef(str(llama)),
        load_suite(suite),
        how,
        name="llama",
        out=tmp_path,
        progress=lambda total: lambda units: None,
    )
    found = summarise(result, resamples=10)
    counts = {domain: next(iter(metrics.values())).n for domain, metrics in found.items() if domain != "mean"}
    assert counts == dict.fromkeys(load_suite(suite).tasks, 20)


@pytest.mark.parametrize("benchmark", sorted(set(BENCHMARKS) - {"bbh", "math", "mmlu"}))
def test_the_files_hold_rows(benchmark):
    assert all(len(split) > 20 for split in load(benchmark, Path(str(FOLDER))).values())


@pytest.mark.parametrize("task", ["humaneval", "mbpp"])
def test_reference_solutions_pass_their_tests_in_the_sandbox_and_decide_nothing_themselves(task, caplog):
    (subtask,) = load_subtasks(task, Path(str(FOLDER)), limit=None)
    assert len(subtask.doc_indices) > 100
    for index in subtask.doc_indices:
        doc = subtask.task.eval_docs[index]
        solution = doc["prompt"] + doc["canonical_solution"] if task == "humaneval" else doc["code"]
        assert subtask.task.process_results(doc, [solution])["pass@1"] == 1.0, doc["task_id"]
    assert "decided something of its verdict itself" not in caplog.text
