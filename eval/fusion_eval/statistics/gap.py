"""How much of the way from plain fine-tuning to the best source the fused model has gone, task by task.

    (fused - fine-tuned) / (best source - fine-tuned)

1 is as good as the best source of each task, 0 as fine-tuning; below 0 fusion lost, above 1 it beat every source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import COVERAGE, RESAMPLES, Interval, measured_sums, resampled_sums, values
from fusion_eval.statistics.comparison import Runs, side_by_side, stacked
from fusion_eval.statistics.metrics import METRICS, parts_of


@dataclass(frozen=True)
class Gap:
    """One metric in one domain, or in the mean over domains."""

    domain: str
    metric: str
    fused: float
    baseline: float
    source: float
    """Value of the best source; in the mean, of the best of each domain."""
    best: str
    """Name of the best source; empty in the mean."""
    closed: Interval | None
    """The share of the gap that is closed; None where no source is better than the baseline, so that there is none."""


Sampled = NDArray[np.float64]  # [1 + resamples, 3]: fused, baseline, best source; first as measured, then each draw


def gap_closed(
    fused: Runs, baseline: Runs, sources: Sequence[Result], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[Gap]:
    """The gap in every domain and metric that all know, then the mean over domains of each metric.

    Intervals are bootstrap intervals over questions, each drawn with the answers of all models; their ends are infinite
    where more than a fortieth of the draws has no gap, for then the share has no bounds. The best source is chosen on the
    questions it is then measured on, which favours it a little, and the more sources the more. Of several runs of a model,
    one a seed, the mean counts, and draws are over runs too.

    Raises ValueError without sources, or where models were measured on different questions.
    """
    if not sources:
        raise ValueError("The gap needs at least one source; name the sources among the models.")
    runs = side_by_side(fused, baseline)
    gaps, means = [], []
    for metric in METRICS:
        sampled = {}
        for domain in dict.fromkeys(item.domain for item in runs[0][0].items):
            parts = [parts_of([ours, start, *sources], domain, metric) for ours, start in runs]
            if any(each is None for each in parts):
                continue
            columns = stacked([each for each in parts if each is not None])
            found = _values(columns, seed, resamples, domain)
            best = 2 + int(np.argmin(found[0, 2:]) if METRICS[metric].lower_is_better else np.argmax(found[0, 2:]))
            sampled[domain] = found[:, [0, 1, best]], columns.shape[-1]
            gaps.append(_gap(domain, metric, sampled[domain][0], columns.shape[-1], sources[best - 2].model))
        if sampled:
            together = np.mean([each for each, _ in sampled.values()], axis=0)
            means.append(_gap(MEAN, metric, together, sum(n for _, n in sampled.values()), ""))
    return gaps + means


def _values(columns: NDArray[np.float64], seed: int, resamples: int, domain: str) -> NDArray[np.float64]:
    """[1 + resamples, models]: the metric as measured, then on each draw."""
    return values(np.concatenate([measured_sums(columns)[None], resampled_sums(columns, seed, resamples, domain)]))


def _gap(domain: str, metric: str, sampled: Sampled, n: int, best: str) -> Gap:
    fused, baseline, source = map(float, sampled[0])
    closed = _share(sampled, n) if METRICS[metric].better(source - baseline) else None
    return Gap(domain, metric, fused, baseline, source, best, closed)


def _share(sampled: Sampled, n: int) -> Interval:
    gain, gap = (sampled[:, 0] - sampled[:, 1]), (sampled[:, 2] - sampled[:, 1])
    value, some = float(gain[0] / gap[0]), np.sign(gap[1:]) == np.sign(gap[0])
    if n < 2 or some.mean() < (1 + COVERAGE) / 2:
        return Interval(value, -math.inf, math.inf, n)
    low, high = np.quantile(gain[1:][some] / gap[1:][some], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(value, float(low), float(high), n)
