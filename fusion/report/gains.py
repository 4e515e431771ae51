"""Where the fused model gained and where it lost, domain by domain, against what it is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from fusion.report.record import Record
from fusion.report.verdict import mark
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES, Interval
from fusion_eval.statistics.comparison import Scores, compare
from fusion_eval.statistics.gap import Gap, gap_closed
from fusion_eval.statistics.metrics import METRICS

BEST = "best source"


@dataclass(frozen=True)
class Gain:
    """One domain, or the mean of them, in one metric."""

    domain: str
    best: str
    """The source that is best here; empty on the mean, where it is another in each domain."""
    differences: dict[str, Interval]
    """The fused model less another, paired; by the other's name, with `best source` among them but for the mean."""
    closed: Interval | None
    """Share of the way from plain fine-tuning to the best source that the fused model has gone; None without a gap.

    Where the gap is too small to be told from none, the interval has no ends and the share means nothing.
    """


@dataclass(frozen=True)
class Gains:
    """All domains in one metric."""

    metric: str
    model: str
    rows: list[Gain]
    others: list[str]
    """Whom the fused model is compared with, in the order of the table."""
    way: dict[str, dict[str, Interval]]
    """Fused model and plain fine-tuning -> domain -> share of the way from the pivot to the best source, where bounded."""

    @property
    def regressions(self) -> dict[str, list[str]]:
        """Pivot and plain fine-tuning -> domains in which the fused model is shown to be worse; those with any."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for name, difference in row.differences.items():
                if name != BEST and row.domain != MEAN and mark(self.metric, difference) == "▼":
                    found.setdefault(name, []).append(row.domain)
        return found


AllGains = dict[tuple[str, str], Gains]
"""Gains by suite and metric."""


def all_gains(record: Record, *, resamples: int = RESAMPLES) -> AllGains:
    """Gains by suite and metric, wherever the fused model was evaluated and there is something to compare it with."""
    return {(suite, one.metric): one for suite in record.results for one in gains(record, suite, resamples=resamples)}


def gains(record: Record, suite: str, *, resamples: int = RESAMPLES) -> list[Gains]:
    """Compare the fused model with pivot, plain fine-tuning and sources, in each metric that there is.

    Raises ValueError when they were measured on different items.
    """
    ours, plain = record.result(suite), record.baseline(suite)
    pivot = next(iter(record.of_role(suite, "pivot")), None)
    sources = record.of_role(suite, "source")
    others = [one for one in (pivot, plain) if one is not None and one is not ours]
    if ours is None or not others + sources:
        return []
    scores = {one.model: compare(ours, one, resamples=resamples) for one in [*others, *sources]}
    gaps = _gaps(ours, plain or pivot, sources, resamples)
    way = {one.model: _gaps(one, pivot, sources, resamples) for one in (ours, plain) if one is not None}
    names = [one.model for one in others] + ([BEST] if gaps else [])
    found = [
        Gains(metric, ours.model, _rows(metric, scores, gaps, names), names, _way(metric, way)) for metric in METRICS
    ]
    return [one for one in found if one.rows]


def _rows(
    metric: str, scores: Mapping[str, Scores], gaps: Mapping[tuple[str, str], Gap], names: Sequence[str]
) -> list[Gain]:
    domains = dict.fromkeys(domain for one in scores.values() for domain, found in one.items() if metric in found)
    rows = []
    for domain in sorted(domains, key=lambda domain: domain == MEAN):
        gap = gaps.get((metric, domain))
        best = "" if gap is None else gap.best_source
        wanted = {name: scores.get(best if name == BEST else name, {}).get(domain, {}).get(metric) for name in names}
        differences = {name: found for name, found in wanted.items() if found is not None}
        rows.append(Gain(domain, best, differences, None if gap is None else gap.closed))
    return rows


def _gaps(
    result: Result, start: Result | None, sources: Sequence[Result], resamples: int
) -> dict[tuple[str, str], Gap]:
    if start is None or not sources or start is result:
        return {}
    return {(gap.metric, gap.domain): gap for gap in gap_closed(result, start, sources, resamples=resamples)}


def _way(metric: str, way: Mapping[str, Mapping[tuple[str, str], Gap]]) -> dict[str, dict[str, Interval]]:
    found = {
        model: {domain: gap.closed for (m, domain), gap in gaps.items() if m == metric and bounded(gap.closed)}
        for model, gaps in way.items()
    }
    return {model: shares for model, shares in found.items() if shares}


def bounded(share: Interval | None) -> TypeGuard[Interval]:
    """Whether there is a share whose interval has ends."""
    return share is not None and math.isfinite(share.half)


def gain_cell(metric: str, difference: Interval | None) -> tuple[str, str, str]:
    """Difference with its sign, half its interval, and the mark of what it shows; empty where there is none."""
    if difference is None:
        return "–", "", ""
    show = METRICS[metric].show
    sign = "" if difference.value < 0 else "+"
    return f"{sign}{show(difference.value)}", f"±{show(difference.half)}", mark(metric, difference)
