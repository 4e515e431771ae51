"""`evaluation.json` of a merged folder, and the part of its card that quotes the figures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object
from fusion.merging.evaluation.merge_evaluation import MEASURED, MergeEvaluation
from fusion.merging.files.merge_record import CARD
from fusion.runtime.artifacts import write_json, write_text
from fusion_eval.results import MEAN
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.worst_domain import PairedDifference, worst_of

FILE_NAME = "evaluation.json"


def write_evaluation(folder: Path, evaluation: MergeEvaluation, *, data: Sequence[Any], table: str) -> None:
    """Write the figures of one suite into the merged folder: evaluation.json, and `table`, in Markdown, into the card.

    Those of other suites stay. `data` says what was read, as the recipe names it.
    """
    suite, file = evaluation.merged.suite, folder / FILE_NAME
    existing = read_object(file) if file.is_file() else {}
    write_json(file, existing | {suite: {"data": list(data)} | _figures(evaluation)})
    card = folder / CARD
    text = card.read_text() if card.is_file() else f"# {folder.name}\n"
    write_text(card, with_section(text, f"Evaluation: {suite}", table))


def with_section(text: str, title: str, body: str) -> str:
    """The text of a card with this section, in place of one with this title or at the end."""
    section = f"## {title}\n\n{body.strip()}\n"
    pattern = rf"^## {re.escape(title)}\n.*?(?=^## |\Z)"
    if re.search(pattern, text, flags=re.MULTILINE | re.DOTALL):
        return re.sub(pattern, lambda _: f"{section}\n", text, flags=re.MULTILINE | re.DOTALL).rstrip() + "\n"
    return f"{text.rstrip()}\n\n{section}"


def _figures(evaluation: MergeEvaluation) -> dict[str, Any]:
    models = [
        {"name": model.name, "role": model.role, "path": model.path, "scores": _scores(summarise(result))}
        for model, result in zip(evaluation.models, evaluation.results, strict=True)
    ]
    compared = {title: _differences(found) for title, found in evaluation.comparisons.items()}
    return {"models": models, "merged_less": compared, "provenance": evaluation.merged.provenance["key"]}


def _scores(scores: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
    return {
        domain: {metric: _finite(interval) for metric, interval in metrics.items() if metric in MEASURED}
        for domain, metrics in scores.items()
    }


def _differences(found: Sequence[PairedDifference]) -> dict[str, Any]:
    figures = {}
    for metric in MEASURED:
        of_metric = [each for each in found if each.metric == metric]
        if (worst := worst_of(found, metric)) is not None:
            domains = {each.domain: {"other": each.other} | _finite(each.difference) for each in of_metric}
            figures[metric] = {"worst_domain": worst.domain, MEAN: domains.pop(MEAN), "domains": domains}
    return figures


def _finite(interval: Interval) -> dict[str, Any]:
    """An interval as JSON holds it: None for an end that is infinite."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(interval).items()}
