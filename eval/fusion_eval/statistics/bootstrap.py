"""Percentile-bootstrap intervals (Efron & Tibshirani 1993, chapter 13) of ratios of sums, as arrays.

Columns are [models, parts, n]: of each model and example the numerators and, last, the denominator. Those of several runs,
one a seed, are [runs, models, parts, n].
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
_AT_ONCE = 4_000_000  # resampled indices held in memory at a time


@dataclass(frozen=True)
class Interval:
    """A value, the ends of its 95% interval, and the number of examples; the ends of a single example are infinite."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width: what stands after ±."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside."""
        return value < self.low or value > self.high


@dataclass(frozen=True)
class Sample:
    """A statistic, and what it came to on each resampled set of examples."""

    value: float
    draws: NDArray[np.float64]
    n: int

    def interval(self) -> Interval:
        """The middle 95% of the draws; without ends where one example, or none that can tell, was drawn from."""
        if self.n < 2 or np.isnan(self.draws).any():
            return Interval(self.value, -math.inf, math.inf, self.n)
        low, high = np.quantile(self.draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
        return Interval(self.value, float(low), float(high), self.n)


def values(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., models] from sums [..., models, parts]: a ratio; of several numerators, one a bin, that of their sizes.

    The second is an average over bins of how far each is off.
    """
    above = sums[..., 0] if sums.shape[-1] == 2 else np.abs(sums[..., :-1]).sum(-1)
    return above / sums[..., -1]


def _statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The value of one model, or that of the first less that of the second."""
    found = values(sums)
    return found[..., 0] if found.shape[-1] == 1 else found[..., 0] - found[..., 1]


def sample(columns: NDArray[np.float64], seed: int, resamples: int, stream: str = "") -> Sample:
    """The statistic of one model or of two, as measured and on each draw. Raises ValueError without examples."""
    n = columns.shape[-1]
    if n == 0:
        raise ValueError("There are no examples, so there is no mean; check what was evaluated.")
    if not np.isfinite(columns).all() or not (columns[..., -1, :] > 0).all():
        raise ValueError("Every value must be finite and every denominator above 0; check the examples.")
    value = float(_statistic(measured_sums(columns)))
    if n == 1:  # resampling one example gives it back every time, and would claim certainty
        return Sample(value, np.full(resamples, np.nan), n)
    return Sample(value, _statistic(resampled_sums(columns, seed, resamples, stream)), n)


def measured_sums(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """[models, parts]: sums over examples, and over runs."""
    return columns.sum(-1) if columns.ndim == 3 else columns.sum((0, -1))


def resampled_sums(columns: NDArray[np.float64], seed: int, resamples: int, stream: str = "") -> NDArray[np.float64]:
    """[resamples, models, parts]: the same over examples drawn with replacement, the same ones for all models.

    Of several runs, runs are drawn too, and the same examples of each.
    """
    n = columns.shape[-1]
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    if columns.ndim == 4:
        return _sums_over_runs(columns, seed, rng, resamples)
    flat, step = columns.reshape(-1, n), max(1, _AT_ONCE // n)
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


def mean_of(samples: Sequence[Sample]) -> Sample:
    """The unweighted mean of statistics that were drawn apart."""
    draws = np.mean([sample.draws for sample in samples], axis=0)
    return Sample(float(np.mean([s.value for s in samples])), draws, sum(s.n for s in samples))
