"""What the sections of the page show, as plain values for the template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusion.report.differences import MetricDifferences, SuiteDifferences, bounded, difference_cell
from fusion.report.figures.run_figures import figure_name
from fusion.report.run_contents import RunContents
from fusion.report.score_table import score_table
from fusion.report.units import duration, percent, size
from fusion.report.verdict import suite_verdict
from fusion.runtime.run_file import RunFile
from fusion_eval.results import MEAN
from fusion_eval.statistics.metrics import METRICS

MAX_OPEN_DOMAINS = 4
"""Domains of a suite up to which all answers are laid open; of more domains, those of the first."""


def suite_section(contents: RunContents, name: str, compared: SuiteDifferences, resamples: int) -> dict[str, Any]:
    """One suite: verdict, a table for each metric, differences from the other models, and the names of its figures."""
    results, baseline = contents.results[name], contents.baseline(name)
    numbers = score_table(results, None if baseline is None else baseline.model, resamples=resamples)
    shown = [metric for metric in METRICS if any(metric == column for _, column in numbers.columns)]
    found, missing = suite_verdict(contents, name, resamples=resamples)
    metric_differences = [compared[name, metric] for metric in shown if (name, metric) in compared]
    return {
        "name": name,
        "verdict": found,
        "no_verdict": f"the verdict on {name}; {missing}",
        "tables": [(metric, *numbers.for_metric(metric)) for metric in shown],
        "labels": {metric: METRICS[metric].label for metric in shown},
        "caption": numbers.caption,
        "figures": {m: {kind: figure_name(name, m, kind) for kind in ("bars", "radar", "gap")} for m in shown},
        "differences": [(one, _difference_rows(one)) for one in metric_differences],
    }


def _difference_rows(numbers: MetricDifferences) -> list[dict[str, Any]]:
    """Cells of each domain: the difference from each other model, and the share of the gap that was closed."""
    return [
        {
            "domain": row.domain,
            "best_source": row.best_source,
            "cells": {
                name: difference_cell(numbers.metric, row.differences.get(name)) for name in numbers.compared_with
            },
            "gap_closed": row.gap_closed,
        }
        for row in numbers.rows
    ]


def summary_tiles(contents: RunContents, suites: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """The run in a few numbers: label, number, and what it is to be compared with."""
    found = [tile for suite in suites for tile in _suite_tiles(contents, suite)]
    sources = contents.run.names_by_role("source")
    if sources:
        parameters = [contents.run.models[name].parameters for name in sources]
        known = [count for count in parameters if count is not None]
        found.append(("sources", str(len(sources)), f"{size(sum(known))} parameters in all" if known else ""))
    if contents.run.stages:
        seconds = sum(stage.seconds for stage in contents.run.stages)
        trained = sum(stage.seconds for stage in contents.run.stages if _is_training(stage.name))
        found.append(("wall time", duration(seconds), f"{percent(trained / seconds) if seconds else '–'} training"))
    return found


def _is_training(stage: str) -> bool:
    """Whether a stage trains the pivot: `train unified`, `round 2: train`."""
    return stage.startswith("train") or stage.endswith(": train")


def _suite_tiles(contents: RunContents, suite: dict[str, Any]) -> list[tuple[str, str, str]]:
    tiles = []
    for numbers, _ in suite["differences"]:
        mean = next((row for row in numbers.rows if row.domain == MEAN), None)
        cells = next(cells for metric, _, _, rows in suite["tables"] if metric == numbers.metric for _, cells in rows)
        baseline = contents.run.baseline
        if mean is None or baseline not in mean.differences:
            continue
        difference, spread, mark = difference_cell(numbers.metric, mean.differences[baseline])
        label = METRICS[numbers.metric].label
        tiles.append(
            (f"{label}, mean of {suite['name']}", cells[-1].value, f"{difference} {spread}{mark} against {baseline}")
        )
        if bounded(mean.gap_closed):
            tiles.append(
                (f"gap closed, {label}", percent(mean.gap_closed.value), f"0% is {baseline}, 100% the best sources")
            )
    return tiles


def cost_rows(run: RunFile) -> list[dict[str, Any]]:
    """Each stage with what it was expected to take and the time it took."""
    plan = {estimate.stage: estimate for estimate in run.plan}
    total = sum(stage.seconds for stage in run.stages)
    longest = max((stage.seconds for stage in run.stages), default=0.0)
    return [
        {
            "stage": stage,
            "plan": plan.get(stage.name),
            "share": stage.seconds / total if total else 0.0,
            "bar": stage.seconds / longest if longest else 0.0,
        }
        for stage in run.stages
    ]


def cache_rows(run: RunFile) -> list[dict[str, Any]]:
    """The cache of each model, and the bytes that a row takes in it."""
    return [
        {"name": name, "facts": facts, "each": facts.bytes / facts.rows if facts.rows else 0.0}
        for name, facts in run.caches.items()
    ]
