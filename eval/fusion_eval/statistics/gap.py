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
from fusion_eval.statistics.bootstrap import COVERAGE, RESAMPLES, Interval, measured_sums, ratio_of_sums, resampled_sums
from fusion_eval.statistics.comparison import Runs, pair_runs, stack_runs
from fusion_eval.statistics.metrics import METRICS, domain_columns


@dataclass(frozen=True)
class Gap:
    """One metric in one domain, or in the mean over domains."""

    domain: str
    metric: str
    fused: float
    baseline: float
    source: float
    """Value of the best source; in the mean, of the best of each domain."""
    best_source: str
    """Name of the best source; empty in the mean."""
    closed: Interval | None
    """The share of the gap that is closed; None where no source is better than the baseline, so that there is none."""


Resampled = NDArray[np.float64]  # [1 + resamples, 3]: fused, baseline, best source; first as measured, then resampled


def gap_closed(
    fused: Runs, baseline: Runs, sources: Sequence[Result], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[Gap]:
    """The gap in every domain and metric that all models have, then the mean over domains of each metric.

    Intervals are bootstrap intervals over questions, each drawn with the answers of all models; their ends are infinite
    where more than a fortieth of the draws has no gap, for then the share has no bounds. The best source is chosen on the
    questions it is then measured on, which favours it a little, and the more sources the more. Of several runs of a model,
    one a seed, the mean counts, and draws are over runs too.

    Raises ValueError without sources, or where models were measured on different questions.
    """
    if not sources:
        raise ValueError("The gap needs at least one source; name the sources among the models.")
    runs = pair_runs(fused, baseline)
    gaps, means = [], []
    for metric in METRICS:
        resampled: dict[str, tuple[Resampled, int]] = {}
        for domain in dict.fromkeys(sample.domain for sample in runs[0][0].samples):
            of_runs = [domain_columns([one, start, *sources], domain, metric) for one, start in runs]
            if any(columns is None for columns in of_runs):
                continue
            columns = stack_runs([columns for columns in of_runs if columns is not None])
            values = _values(columns, seed, resamples, domain)
            best = 2 + int(np.argmin(values[0, 2:]) if METRICS[metric].lower_is_better else np.argmax(values[0, 2:]))
            resampled[domain] = values[:, [0, 1, best]], columns.shape[-1]
            gaps.append(_gap(domain, metric, *resampled[domain], best_source=sources[best - 2].model))
        if resampled:
            mean = np.mean([values for values, _ in resampled.values()], axis=0)
            means.append(_gap(MEAN, metric, mean, sum(n for _, n in resampled.values())))
    return gaps + means


def _values(columns: NDArray[np.float64], seed: int, resamples: int, domain: str) -> NDArray[np.float64]:
    """The metric [1 + resamples, models]: as measured, then on each resampled set."""
    drawn = resampled_sums(columns, seed, resamples, stream=domain)
    return ratio_of_sums(np.concatenate([measured_sums(columns)[None], drawn]))


def _gap(domain: str, metric: str, resampled: Resampled, n: int, *, best_source: str = "") -> Gap:
    fused, baseline, source = map(float, resampled[0])
    closed = _share(resampled, n) if METRICS[metric].better(source - baseline) else None
    return Gap(domain, metric, fused, baseline, source, best_source, closed)


def _share(resampled: Resampled, n: int) -> Interval:
    gain, gap = (resampled[:, 0] - resampled[:, 1]), (resampled[:, 2] - resampled[:, 1])
    value, has_gap = float(gain[0] / gap[0]), np.sign(gap[1:]) == np.sign(gap[0])
    if n < 2 or has_gap.mean() < (1 + COVERAGE) / 2:
        return Interval(value, -math.inf, math.inf, n)
    low, high = np.quantile(gain[1:][has_gap] / gap[1:][has_gap], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(value, float(low), float(high), n)
