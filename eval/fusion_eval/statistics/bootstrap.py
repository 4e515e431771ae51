"""Estimates of ratios of sums and their intervals: percentile bootstrap over examples (Efron & Tibshirani 1993, chapter 13).

Columns are arrays [models, parts, n]: the parts of a metric for each model and example, which are its numerators and, last,
its denominator. Those of several runs, one a seed, are [runs, models, parts, n].
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fusion_eval.statistics.intervals import (
    COVERAGE,
    UNBOUNDED,
    Arms,
    Interval,
    add_arms,
    effective_number,
    paired_share_difference,
    t_half_width,
    wilson,
)

RESAMPLES = 2000
FEW = 10
"""Where fewer examples than this depart from the commonest score, draws of examples say too little of a share."""
_INDICES_IN_MEMORY = 4_000_000
_INDICES_KEPT = 1_000_000  # of one stream: 8 MB


@dataclass(frozen=True)
class Estimate:
    """A statistic as measured, and what its interval is computed from."""

    value: float
    """As measured on all examples."""
    resampled: NDArray[np.float64]
    """[resamples]: its value on each resampled set of examples; NaN where there is one example only."""
    n: int
    """Number of examples."""
    arms: Arms | None = None
    """Those over examples where they are known in closed form; None takes the middle 95% of `resampled`."""
    by_run: NDArray[np.float64] | None = None
    """[runs]: what each of several runs says (jackknife pseudo-values; of a mean, the mean of each run)."""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """What no value can lie beyond, such as 0 and 1."""

    def arms_over_examples(self) -> Arms:
        """How the choice of examples alone may have changed the value; infinite for one example, or where a draw is NaN."""
        if self.arms is not None:
            return self.arms
        if self.n < 2 or np.isnan(self.resampled).any():
            return UNBOUNDED
        low, high = np.quantile(self.resampled, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
        return self.value - float(low), float(high) - self.value

    def interval(self) -> Interval:
        """The 95% interval over examples and, where there are several runs, over runs: a t interval over these added."""
        luck = 0.0 if self.by_run is None else t_half_width(self.by_run)
        below, above = self.arms_over_examples() if luck == 0 else add_arms([self.arms_over_examples(), (luck, luck)])
        low, high = self.bounds
        return Interval(self.value, max(low, self.value - below), min(high, self.value + above), self.n)


def ratio_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [..., models] of a metric from sums [..., models, parts]: numerator over denominator.

    Of several numerators, one a bin, their absolute values are added: how far each bin is off, on average over bins.
    """
    numerator = sums[..., 0] if sums.shape[-1] == 2 else np.abs(sums[..., :-1]).sum(-1)
    return numerator / sums[..., -1]


def _statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The value of one model, or that of the first minus that of the second."""
    values = ratio_of_sums(sums)
    return values[..., 0] if values.shape[-1] == 1 else values[..., 0] - values[..., 1]


def bootstrap(
    columns: NDArray[np.float64], seed: int, resamples: int, *, stream: str = "", share: bool = False
) -> Estimate:
    """Estimate the value of one model, or the paired difference of two, from columns [models, parts, n] or those of runs.

    `share`: scores are in [0, 1], so that a share has Wilson's interval, and a difference of two Newcombe's where few examples
    tell the models apart. `stream` names the stream of random numbers: the same one draws the same examples. Raises ValueError
    without examples, for values that are not finite, and for denominators that are not above 0.
    """
    n, models = columns.shape[-1], columns.shape[-3]
    if n == 0:
        raise ValueError("There are no examples, so there is no mean; check what was evaluated.")
    if not np.isfinite(columns).all() or not (columns[..., -1, :] > 0).all():
        raise ValueError("Every value must be finite and every denominator above 0; check the examples.")
    runs = columns if columns.ndim == 4 and len(columns) > 1 else None
    value = float(_statistic(measured_sums(columns)))
    # resampling one example gives it back every time, and would claim certainty
    drawn = _statistic(resampled_sums(columns, seed, resamples, stream=stream)) if n > 1 else np.full(resamples, np.nan)
    return Estimate(
        value, drawn, n, arms=_share_arms(columns) if share else None,
        by_run=None if runs is None else pseudo_values(value, _statistic(sums_without_each(runs))),
        bounds=((0.0, 1.0) if models == 1 else (-1.0, 1.0)) if share else (-math.inf, math.inf),
    )  # fmt: skip


def _share_arms(columns: NDArray[np.float64]) -> Arms | None:
    """Arms over examples of a share or of a difference of two; None where the bootstrap serves.

    Scores that are neither 0 nor 1, and those averaged over runs, vary less than shares do: the bootstrap sees how much less.
    """
    summed = columns.sum(0) if columns.ndim == 4 else columns
    scores, weights = summed[:, 0] / summed[:, 1], summed[0, 1]
    if len(scores) == 2:
        return paired_share_difference(scores[0], scores[1], weights) if _few_depart(scores[0] - scores[1]) else None
    if set(np.unique(scores)) <= {0.0, 1.0} or _few_depart(scores[0]):
        return wilson(float(np.average(scores[0], weights=weights)), effective_number(weights))
    return None


def _few_depart(values: NDArray[np.float64]) -> bool:
    return len(values) - Counter(values.tolist()).most_common(1)[0][1] < FEW


def measured_sums(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums [models, parts] over all examples, and over runs where there are several."""
    return columns.sum(-1) if columns.ndim == 3 else columns.sum((0, -1))


def sums_without_each(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums [runs, models, parts] over all examples and all runs but one, from columns of two runs or more."""
    by_run = columns.sum(-1)
    return by_run.sum(0) - by_run


def pseudo_values(value: float, without_each: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each run says of a statistic, from its value without that run (the jackknife); of a mean, each run's own mean.

    Source: Efron & Tibshirani 1993, chapter 11.
    """
    runs = len(without_each)
    return runs * value - (runs - 1) * without_each


def resampled_sums(columns: NDArray[np.float64], seed: int, resamples: int, *, stream: str = "") -> NDArray[np.float64]:
    """Sums [resamples, models, parts] over examples drawn with replacement, the same ones for all models and runs."""
    summed = columns.sum(0) if columns.ndim == 4 else columns
    n = summed.shape[-1]
    flat, drawn = summed.reshape(-1, n), (seed, stream, n, resamples)
    counts = _kept_draws(*drawn) if n * resamples <= _INDICES_KEPT else _draws(*drawn)
    # one product a part: equal parts get equal sums to the last digit, so two equal models differ by exactly 0
    return np.concatenate([np.stack([each @ part for part in flat], -1) for each in counts]).reshape(
        resamples, *summed.shape[:-1]
    )


@lru_cache(maxsize=16)
def _kept_draws(seed: int, stream: str, n: int, resamples: int) -> tuple[NDArray[np.float64], ...]:
    """The blocks of `_draws`, kept: a report asks for those of one domain once a model, a pair of models and a figure."""
    return tuple(_draws(seed, stream, n, resamples))


def _draws(seed: int, stream: str, n: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    """How often each of n examples is drawn, [draws, n] in blocks: draws of n with replacement, `resamples` in all."""
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    step = max(1, _INDICES_IN_MEMORY // n)
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        drawn = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
        yield np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def mean_of_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of estimates whose examples were drawn independently and whose runs are the same."""
    runs = [each.by_run for each in estimates if each.by_run is not None]
    below, above = add_arms([each.arms_over_examples() for each in estimates])
    closed = any(each.arms is not None for each in estimates)
    return Estimate(
        float(np.mean([each.value for each in estimates])),
        np.mean([each.resampled for each in estimates], axis=0),
        sum(each.n for each in estimates),
        arms=(below / len(estimates), above / len(estimates)) if closed else None,
        by_run=np.mean(runs, axis=0) if runs else None,
        bounds=estimates[0].bounds,
    )
