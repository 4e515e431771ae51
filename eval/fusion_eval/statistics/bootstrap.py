"""Percentile-bootstrap intervals (Efron & Tibshirani 1993, chapter 13) of ratios of sums, as arrays.

Columns are arrays [models, parts, n]: the parts of a metric for each model and example, which are its numerators and, last,
its denominator. Those of several runs, one a seed, are [runs, models, parts, n].
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
COVERAGE = 0.95
_INDICES_IN_MEMORY = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A value, the ends of its 95% interval, and the number of examples; the ends of a single example are infinite."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width, as printed after ±."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside of the interval."""
        return value < self.low or value > self.high


@dataclass(frozen=True)
class BootstrapResult:
    """A statistic, and its bootstrap distribution: its value on each resampled set of examples."""

    value: float
    """As measured on all examples."""
    resampled: NDArray[np.float64]
    """[resamples]; NaN where there is one example only."""
    n: int
    """Number of examples."""

    def interval(self) -> Interval:
        """The middle 95% of the distribution; its ends are infinite where there is one example only, or a value is NaN."""
        if self.n < 2 or np.isnan(self.resampled).any():
            return Interval(self.value, -math.inf, math.inf, self.n)
        low, high = np.quantile(self.resampled, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
        return Interval(self.value, float(low), float(high), self.n)


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


def bootstrap(columns: NDArray[np.float64], seed: int, resamples: int, *, stream: str = "") -> BootstrapResult:
    """Bootstrap the value of one model, or the paired difference of two, from columns [models, parts, n].

    `stream` names the stream of random numbers: the same one draws the same examples. Raises ValueError without examples, for
    values that are not finite, and for denominators that are not above 0.
    """
    n = columns.shape[-1]
    if n == 0:
        raise ValueError("There are no examples, so there is no mean; check what was evaluated.")
    if not np.isfinite(columns).all() or not (columns[..., -1, :] > 0).all():
        raise ValueError("Every value must be finite and every denominator above 0; check the examples.")
    value = float(_statistic(measured_sums(columns)))
    if n == 1:  # resampling one example gives it back every time, and would claim certainty
        return BootstrapResult(value, np.full(resamples, np.nan), n)
    return BootstrapResult(value, _statistic(resampled_sums(columns, seed, resamples, stream=stream)), n)


def measured_sums(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums [models, parts] over all examples, and over runs where there are several."""
    return columns.sum(-1) if columns.ndim == 3 else columns.sum((0, -1))


def resampled_sums(columns: NDArray[np.float64], seed: int, resamples: int, *, stream: str = "") -> NDArray[np.float64]:
    """Sums [resamples, models, parts] over examples drawn with replacement, the same ones for all models.

    Of several runs, runs are drawn too, and the same examples of each.
    """
    n = columns.shape[-1]
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    if columns.ndim == 4:
        return _sums_over_runs(columns, seed, rng, resamples)
    flat, step = columns.reshape(-1, n), max(1, _INDICES_IN_MEMORY // n)
    drawn = (rng.integers(n, size=(min(step, resamples - start), n)) for start in range(0, resamples, step))
    return np.concatenate([flat[:, chosen].sum(-1).T for chosen in drawn]).reshape(resamples, *columns.shape[:-1])


def _sums_over_runs(
    columns: NDArray[np.float64], seed: int, rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """A run is drawn for all streams at once, for a training that went well may have gone well in every domain."""
    runs, n = columns.shape[0], columns.shape[-1]
    often = np.random.default_rng([seed, runs]).multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.einsum("rs,smpn,rn->rmp", often, columns, counts, optimize=True)


def mean_of_statistics(statistics: Sequence[BootstrapResult]) -> BootstrapResult:
    """The unweighted mean of statistics whose examples were drawn independently."""
    resampled = np.mean([each.resampled for each in statistics], axis=0)
    return BootstrapResult(
        float(np.mean([each.value for each in statistics])), resampled, sum(each.n for each in statistics)
    )
