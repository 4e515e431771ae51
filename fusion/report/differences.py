"""Differences between the fused model and the models it is made of, domain by domain: gains, losses, and the gap closed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from fusion.report.run_contents import RunContents
from fusion.report.verdict import mark
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.comparison import Scores, compare
from fusion_eval.statistics.gap import Gap, gap_closed
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import METRICS

BEST_SOURCE = "best source"


@dataclass(frozen=True)
class DomainDifference:
    """The fused model against the others on one domain, or on the mean over domains, in one metric."""

    domain: str
    best_source: str
    """Name of the source with the best value here; empty on the mean, where it is another in each domain."""
    differences: dict[str, Interval]
    """Name of another model, or `best source` -> value of the fused model minus its value, paired by item."""
    gap_closed: Interval | None
    """Share of the way from plain fine-tuning to the best source that the fused model has gone; None without a gap.

    Where the gap is too small to be told from none, the interval has no ends and the share means nothing.
    """


@dataclass(frozen=True)
class MetricDifferences:
    """The fused model against the others on every domain of one suite, in one metric."""

    metric: str
    model: str
    rows: list[DomainDifference]
    compared_with: list[str]
    """Names of the other models, in the order of the table."""
    gap_start: str
    """Name of the model at which the gap begins, which has closed 0%: plain fine-tuning, or the pivot where there is none."""
    gap_shares: dict[str, dict[str, Interval]]
    """Fused model and, for comparison, the pivot -> domain -> share of the same gap that is closed, where bounded."""

    @property
    def regressions(self) -> dict[str, list[str]]:
        """By the name of another model (pivot, plain fine-tuning): domains in which the fused one is shown to be worse."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for name, difference in row.differences.items():
                if name != BEST_SOURCE and row.domain != MEAN and mark(self.metric, difference) == "▼":
                    found.setdefault(name, []).append(row.domain)
        return found


SuiteDifferences = dict[tuple[str, str], MetricDifferences]
"""(suite, metric) -> differences."""


def all_differences(contents: RunContents, *, resamples: int = RESAMPLES) -> SuiteDifferences:
    """Differences by suite and metric, wherever the fused model was evaluated and there is a model to compare it with."""
    return {
        (suite, one.metric): one
        for suite in contents.results
        for one in differences_on(contents, suite, resamples=resamples)
    }


def differences_on(contents: RunContents, suite: str, *, resamples: int = RESAMPLES) -> list[MetricDifferences]:
    """Compare the fused model with pivot, plain fine-tuning and sources, in each metric that there is.

    Raises ValueError when they were measured on different items.
    """
    fused, fine_tuned = contents.result(suite), contents.baseline(suite)
    pivot = next(iter(contents.results_by_role(suite, "pivot")), None)
    sources = contents.results_by_role(suite, "source")
    others = [one for one in (pivot, fine_tuned) if one is not None and one is not fused]
    if fused is None or not others + sources:
        return []
    scores = {one.model: compare(fused, one, resamples=resamples) for one in [*others, *sources]}
    start = fine_tuned or pivot
    # one zero for the table, the tile and the figure: two made the same model look better in one place than in another
    gaps = {one.model: _gaps(one, start, sources, resamples) for one in (fused, pivot) if one is not None}
    names = [one.model for one in others] + ([BEST_SOURCE] if gaps[fused.model] else [])
    found = [
        MetricDifferences(
            metric,
            fused.model,
            _rows(metric, scores, gaps[fused.model], names),
            names,
            gap_start="" if start is None else start.model,
            gap_shares=_shares(metric, gaps),
        )
        for metric in METRICS
    ]
    return [one for one in found if one.rows]


def _rows(
    metric: str, scores: Mapping[str, Scores], gaps: Mapping[tuple[str, str], Gap], names: Sequence[str]
) -> list[DomainDifference]:
    domains = dict.fromkeys(domain for one in scores.values() for domain, found in one.items() if metric in found)
    rows = []
    for domain in sorted(domains, key=lambda domain: domain == MEAN):
        gap = gaps.get((metric, domain))
        best = "" if gap is None else gap.best_source
        per_model = {
            name: scores.get(best if name == BEST_SOURCE else name, {}).get(domain, {}).get(metric) for name in names
        }
        differences = {name: found for name, found in per_model.items() if found is not None}
        rows.append(DomainDifference(domain, best, differences, None if gap is None else gap.closed))
    return rows


def _gaps(
    result: Result, start: Result | None, sources: Sequence[Result], resamples: int
) -> dict[tuple[str, str], Gap]:
    if start is None or not sources or start is result:
        return {}
    return {(gap.metric, gap.domain): gap for gap in gap_closed(result, start, sources, resamples=resamples)}


def _shares(metric: str, gaps: Mapping[str, Mapping[tuple[str, str], Gap]]) -> dict[str, dict[str, Interval]]:
    found = {
        model: {domain: gap.closed for (m, domain), gap in of_model.items() if m == metric and bounded(gap.closed)}
        for model, of_model in gaps.items()
    }
    return {model: shares for model, shares in found.items() if shares}


def bounded(share: Interval | None) -> TypeGuard[Interval]:
    """Return whether a share of the gap was computed, and its interval is finite on both sides."""
    return share is not None and math.isfinite(share.half)


def difference_cell(metric: str, difference: Interval | None) -> tuple[str, str, str]:
    """Difference with its sign, its interval as ± or both ends, and the mark of what it shows; empty where there is none."""
    if difference is None:
        return "–", "", ""
    metric_shown = METRICS[metric]
    return (
        metric_shown.show_signed(difference.value),
        metric_shown.show_spread(difference, signed=True),
        mark(metric, difference),
    )
