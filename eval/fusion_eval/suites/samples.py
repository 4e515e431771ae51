"""lm-eval's log of one document as a `Sample` of a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fusion_eval.results import Sample
from fusion_eval.suites.tasks import Subtask


def from_lm_eval(subtask: Subtask, logged: Mapping[str, Any], *, weight: float, occurrence: int) -> Sample:
    """Convert one entry of lm-eval's `samples`: of a question its answer and metrics, of a text its likelihood.

    `occurrence` counts documents that are equal, from 1. The prompt is the question's own, without few-shot examples.
    """
    domain, subset, metric = subtask.name, subtask.subset, subtask.metric
    repeated = "" if occurrence == 1 else f"#{occurrence}"
    measured = {name: _number(logged[name]) for name in logged["metrics"]}
    fields = _likelihood(subtask, logged) if metric is None else _answer(subtask, logged, metric)
    return Sample(
        id=f"{domain}{f'/{subset}' if subset else ''}:{logged['doc_hash'][:12]}{repeated}",
        domain=domain,
        subset=subset,
        weight=weight,
        score=None if metric is None else measured[metric],
        metrics={name: value for name, value in measured.items() if value is not None and metric is not None},
        prompt=str(subtask.task.doc_to_text(logged["doc"])),
        **fields,
    )


def _number(value: Any) -> float | None:
    """A metric that is one number for each question; None for one of several (the instructions of IFEval)."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _likelihood(subtask: Subtask, logged: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a text of which only the likelihood is measured."""
    response = logged["resps"][0][0]
    rolling = subtask.task.OUTPUT_TYPE == "loglikelihood_rolling"
    text = logged["arguments"][0][0 if rolling else 1]
    logprob = response if rolling else response[0]
    if not math.isfinite(logprob):
        raise ValueError(
            f"{subtask.name}: the model gives the text that begins {text[:40]!r} a log-likelihood of {logprob}, which no bits "
            "per byte can be made of: it masks a token of the text. Leave the task or the model out."
        )
    return {"target": text, "bytes": len(text.encode()), "nll": -float(logprob)}


def _answer(subtask: Subtask, logged: Mapping[str, Any], metric: str) -> dict[str, Any]:
    if subtask.task.OUTPUT_TYPE == "multiple_choice":
        return _choice(subtask, logged, metric)
    target, filtered = str(logged["target"]), logged["filtered_resps"][0]
    return {
        "target": target,
        "bytes": max(1, len(target.encode())),
        "answer": logged["resps"][0][0],
        "extracted": filtered if filtered is None or isinstance(filtered, str) else str(filtered[0]),
    }


def _choice(subtask: Subtask, logged: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """The likeliest choice; per character where the metric is `acc_norm`, as lm-eval has it."""
    choices = [str(choice) for choice in subtask.task.doc_to_choice(logged["doc"])]
    sizes = [len(choice) if metric == "acc_norm" else 1 for choice in choices]
    likeliest = max(range(len(choices)), key=lambda i: logged["resps"][i][0][0] / sizes[i])
    index = logged["target"]
    target = choices[index] if isinstance(index, int) else str(index)
    return {"target": target, "bytes": max(1, len(target.encode())), "answer": choices[likeliest]}
