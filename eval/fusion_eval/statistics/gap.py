"""How much of the way from plain fine-tuning to the best source the fused model has gone, task by task.

    (fused - fine-tuned) / (best source - fine-tuned)

1 is as good as the best source of each task, 0 as fine-tuning; below 0 fusion lost, above 1 it beat every source. Where no
source is better than fine-tuning there is no gap, and such a task does not count in the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import (
    RESAMPLES,
    measured_sums,
    pseudo_values,
    ratio_of_sums,
    resampled_sums,
    sums_without_each,
)
from fusion_eval.statistics.comparison import Runs, pair_runs, stack_runs
from fusion_eval.statistics.intervals import COVERAGE, Interval, add_arms, t_half_width
from fusion_eval.statistics.metrics import METRICS, domain_columns


@dataclass(frozen=True)
class Gap:
    """One metric in one domain, or in the mean over domains."""

    domain: str
    metric: str
    fused: float
    baseline: float
    source: float
    """Value of the best source; in the mean, as all three values, over the domains that have a gap, of the best of each."""
    best_source: str
    """Name of the best source; empty in the mean."""
    closed: Interval | None
    """The share of the gap that is closed; None where no source is better than the baseline, so that there is none."""


@dataclass(frozen=True)
class GapValues:
    """A metric of the fused model, the baseline and the sources (in this order, the last dimension of each array)."""

    measured: NDArray[np.float64]
    """[models]"""
    resampled: NDArray[np.float64]
    """[resamples, models]: on each resampled set of examples."""
    without_each: NDArray[np.float64]
    """[runs, models]: with each run left out; no rows for a single run."""
    n: int
    """Number of examples."""

    @staticmethod
    def from_columns(columns: NDArray[np.float64], seed: int, resamples: int, domain: str) -> GapValues:
        """Values of columns [models, parts, n], or of those of several runs."""
        drawn = ratio_of_sums(resampled_sums(columns, seed, resamples, stream=domain))
        several = columns.ndim == 4
        without = ratio_of_sums(sums_without_each(columns)) if several else np.empty((0, columns.shape[0]))
        return GapValues(ratio_of_sums(measured_sums(columns)), drawn, without, columns.shape[-1])

    def keep(self, models: Sequence[int]) -> GapValues:
        """The same of some of the models."""
        chosen = list(models)
        return GapValues(self.measured[chosen], self.resampled[:, chosen], self.without_each[:, chosen], self.n)

    @staticmethod
    def mean(values: Sequence[GapValues]) -> GapValues:
        """The mean over domains."""
        return GapValues(
            np.mean([each.measured for each in values], axis=0),
            np.mean([each.resampled for each in values], axis=0),
            np.mean([each.without_each for each in values], axis=0),
            sum(each.n for each in values),
        )


def gap_closed(
    fused: Runs, baseline: Runs, sources: Sequence[Result], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[Gap]:
    """The gap in every domain and metric that all models have, then the mean over domains of each metric.

    Intervals are bootstrap intervals over questions, each drawn with the answers of all models; their ends are infinite
    where more than a fortieth of the draws has no gap, for then the share has no bounds. The best source is chosen on the
    questions it is then measured on, which favours it a little, and the more sources the more. Of several runs of a model,
    one a seed, the mean counts, and a t interval over runs (of the jackknife's pseudo-values) is added.

    Raises ValueError without sources, or where models were measured on different questions.
    """
    if not sources:
        raise ValueError("The gap needs at least one source; name the sources among the models.")
    runs = pair_runs(fused, baseline)
    gaps, means = [], []
    for metric in METRICS:
        by_domain: list[GapValues] = []
        for domain in dict.fromkeys(sample.domain for sample in runs[0][0].samples):
            of_runs = [domain_columns([one, start, *sources], domain, metric) for one, start in runs]
            if any(columns is None for columns in of_runs):
                continue
            columns = stack_runs([columns for columns in of_runs if columns is not None])
            values = GapValues.from_columns(columns, seed, resamples, domain)
            best = 2 + int((np.argmin if METRICS[metric].lower_is_better else np.argmax)(values.measured[2:]))
            by_domain.append(values.keep([0, 1, best]))
            gaps.append(_gap(domain, metric, by_domain[-1], best_source=sources[best - 2].model))
        if by_domain:
            with_gap = [each for each in by_domain if _has_gap(metric, each)]
            means.append(_gap(MEAN, metric, GapValues.mean(with_gap or by_domain)))
    return gaps + means


def _gap(domain: str, metric: str, values: GapValues, *, best_source: str = "") -> Gap:
    fused, baseline, source = map(float, values.measured)
    closed = _share(values) if _has_gap(metric, values) else None
    return Gap(domain, metric, fused, baseline, source, best_source, closed)


def _has_gap(metric: str, values: GapValues) -> bool:
    """Whether the best source is better than the baseline."""
    _fused, baseline, source = map(float, values.measured)
    return METRICS[metric].better(source - baseline)


def _share(values: GapValues) -> Interval:
    value, gap = _shares(values.measured)
    drawn, drawn_gaps = _shares(values.resampled)
    without_each, gaps_without = _shares(values.without_each)
    has_gap = np.sign(drawn_gaps) == np.sign(gap)
    if values.n < 2 or has_gap.mean() < (1 + COVERAGE) / 2 or (np.sign(gaps_without) != np.sign(gap)).any():
        return Interval(float(value), -math.inf, math.inf, values.n)
    low, high = np.quantile(drawn[has_gap], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    luck = t_half_width(pseudo_values(float(value), without_each)) if len(without_each) else 0.0
    below, above = add_arms([(float(value - low), float(high - value)), (luck, luck)])
    return Interval(float(value), float(value) - below, float(value) + above, values.n)


def _shares(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share closed, and the gap, of values [..., 3]: fused, baseline, best source; NaN where there is no gap."""
    gain, gap = values[..., 0] - values[..., 1], values[..., 2] - values[..., 1]
    return np.divide(gain, gap, out=np.full_like(gap, np.nan), where=gap != 0), gap
