"""Where the fused model gained and where it lost, domain by domain, against what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusion.report.record import Record
from fusion.report.verdict import mark
from fusion_eval.gap import best_of, gap_closed
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics import METRICS, RESAMPLES, Interval, compare

BEST = "best source"


@dataclass(frozen=True)
class Gain:
    """One domain, or the mean of them, in one metric."""

    domain: str
    best: str
    """The source that is best here; on the mean `best source`, which takes the best of each domain."""
    differences: dict[str, Interval]
    """The fused model less another, paired; by the other's name, with `best source` among them."""
    closed: dict[str, Interval]
    """Fused model and plain fine-tuning: share of the way from pivot to best source; empty where there is no gap."""


@dataclass(frozen=True)
class Gains:
    """All domains in one metric."""

    metric: str
    model: str
    rows: list[Gain]

    @property
    def closed(self) -> dict[str, dict[str, Interval]]:
        """Model -> domain -> share of the gap."""
        models = dict.fromkeys(model for row in self.rows for model in row.closed)
        return {model: {row.domain: row.closed[model] for row in self.rows if model in row.closed} for model in models}

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
    """Gains by suite and metric, wherever there is something to compare."""
    found = {
        (suite, metric): gains(record, suite, metric, resamples=resamples)
        for suite in record.results
        for metric in METRICS
    }
    return {key: one for key, one in found.items() if one is not None}


def gains(record: Record, suite: str, metric: str, *, resamples: int = RESAMPLES) -> Gains | None:
    """Compare the fused model with pivot, plain fine-tuning and sources; None where it or all of them were not evaluated.

    Raises ValueError when they were measured on different items.
    """
    ours, plain = record.result(suite), record.baseline(suite)
    pivot = next(iter(record.of_role(suite, "pivot")), None)
    best = best_of(record.of_role(suite, "source"), metric, BEST)
    others = {one.model: one for one in (pivot, plain, best) if one is not None and one is not ours}
    if ours is None or not others:
        return None
    found = {name: compare(ours, one, resamples=resamples) for name, one in others.items()}
    differences = {name: {d: m[metric] for d, m in scores.items() if metric in m} for name, scores in found.items()}
    closed = _closed([ours, plain], pivot, best, metric, resamples)
    domains = sorted(dict.fromkeys(d for one in differences.values() for d in one), key=lambda domain: domain == MEAN)
    rows = [
        Gain(
            domain,
            best.made.get(domain, BEST) if best else "",
            {name: one[domain] for name, one in differences.items() if domain in one},
            {model: shares[domain] for model, shares in closed.items() if domain in shares},
        )
        for domain in domains
    ]
    return Gains(metric, ours.model, rows) if rows else None


def _closed(
    results: list[Result | None], pivot: Result | None, best: Result | None, metric: str, resamples: int
) -> Mapping[str, dict[str, Interval]]:
    if pivot is None or best is None:
        return {}
    return {
        result.model: gap_closed(result, pivot, best, metric, resamples=resamples)
        for result in results
        if result is not None and result is not pivot
    }


def gain_cell(metric: str, difference: Interval | None) -> tuple[str, str, str]:
    """Difference with its sign, half its interval, and the mark of what it shows; empty where there is none."""
    if difference is None:
        return "–", "", ""
    show = METRICS[metric].show
    sign = "" if difference.value < 0 else "+"
    return f"{sign}{show(difference.value)}", f"±{show(difference.half)}", mark(metric, difference)
