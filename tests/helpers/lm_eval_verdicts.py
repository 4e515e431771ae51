"""What lm-eval makes of a text: its filters, then its measure, for a document of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusion_eval.suites.tasks import Subtask, load_subtasks

TASKS = {
    "option": "mmlu",
    "number": "gsm8k",
    "formula": "math",
    "span": "drop",
    "phrase": "bbh",
    "program": "humaneval",
}
"""The task whose answers stand in a table of tests/field/answers; TheoremQA is not in lm-eval."""


def subtask_of(table: str, data: Path) -> Subtask:
    """Load the task of a table with lm-eval's scoring."""
    return load_subtasks(TASKS[table], data, scoring="lm_eval")[0]


def score(subtask: Subtask, doc: dict[str, Any], text: str) -> float:
    """Score a text as the answer to a document."""
    task = subtask.task
    request: Any = task.construct_requests(doc, "", doc_id=0, metadata=(subtask.name, 0, 1), apply_chat_template=False)
    request.resps.append(text)
    task._instances = [request]
    task.apply_filters()
    filtered = request.filtered_resps[subtask.filter or next(iter(request.filtered_resps))]
    return task.process_results(doc, [filtered])[subtask.metric]


def verdict(table: str, subtask: Subtask, row: dict[str, Any]) -> bool | str | None:
    """Whether lm-eval takes the answer of a row for right; of an option the letter that it takes it for."""
    text = row["text"]
    if table == "option":
        letters = row.get("letters", "ABCD")[:4]
        return next(
            (x for i, x in enumerate(letters) if score(subtask, {"choices": list(letters), "answer": i}, text)), None
        )
    return bool(score(subtask, _doc(table, row), text) == 1.0)


def _doc(table: str, row: dict[str, Any]) -> dict[str, Any]:
    if table == "number":
        return {"question": "", "answer": f"#### {row['truth']}"}
    if table == "formula":
        return {"problem": "", "solution": rf"$\boxed{{{row['truth']}}}$", "answer": row["truth"]}
    if table == "span":
        return {"passage": "", "question": "", "answers": [tuple(truth) for truth in row["truths"]], "answer": {}}
    if table == "phrase":
        return {"input": "", "target": row["truth"]}
    return {"prompt": row["prompt"], "test": row["tests"], "entry_point": row["name"]}
