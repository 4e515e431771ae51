"""From what lm-eval says of one question to an item of a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lm_eval.api.task import ConfigurableTask

from fusion_eval.results import Item


def item(
    task: ConfigurableTask, sample: Mapping[str, Any], domain: str, subset: str | None, score: str | None, weight: float,
    occurrence: int,
) -> Item:  # fmt: skip
    """`occurrence` counts documents that are equal, from 1. The prompt is the question's own, without worked examples."""
    doc = sample["doc"]
    again = "" if occurrence == 1 else f"#{occurrence}"
    measured = {name: _number(sample[name]) for name in sample["metrics"]}
    facts = _likelihood(task, sample) if score is None else _answer(task, sample, score)
    return Item(
        id=f"{domain}{f'/{subset}' if subset else ''}:{sample['doc_hash'][:12]}{again}",
        domain=domain,
        subset=subset,
        weight=weight,
        score=None if score is None else measured[score],
        metrics={name: value for name, value in measured.items() if value is not None and score is not None},
        prompt=str(task.doc_to_text(doc)),
        **facts,
    )


def _number(value: Any) -> float | None:
    """Measures that are a number for each question; those made of several (the instructions of IFEval) are left out."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _likelihood(task: ConfigurableTask, sample: Mapping[str, Any]) -> dict[str, Any]:
    """A text that is only read: what was predicted, and how well."""
    said = sample["resps"][0][0]
    rolling = task.OUTPUT_TYPE == "loglikelihood_rolling"
    text = sample["arguments"][0][0 if rolling else 1]
    nats = said if rolling else said[0]
    return {"expected": text, "bytes": len(text.encode()), "nats": -float(nats)}


def _answer(task: ConfigurableTask, sample: Mapping[str, Any], score: str) -> dict[str, Any]:
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = [str(choice) for choice in task.doc_to_choice(sample["doc"])]
        sizes = [len(choice) if score == "acc_norm" else 1 for choice in choices]
        likeliest = max(range(len(choices)), key=lambda i: sample["resps"][i][0][0] / sizes[i])
        target = sample["target"]
        expected = choices[target] if isinstance(target, int) else str(target)
        return {"expected": expected, "bytes": max(1, len(expected.encode())), "answer": choices[likeliest]}
    expected, found = str(sample["target"]), sample["filtered_resps"][0]
    return {
        "expected": expected,
        "bytes": max(1, len(expected.encode())),
        "answer": sample["resps"][0][0],
        "extracted": found if found is None or isinstance(found, str) else str(found[0]),
    }
