"""Percentile-bootstrap intervals (Efron & Tibshirani 1993, chapter 13) of sums and ratios of sums, as arrays."""

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


def _statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratio of the first two sums, less the ratio of the next two where there are four; sums along the last axis."""
    ours = sums[..., 0] / sums[..., 1]
    return ours if sums.shape[-1] == 2 else ours - sums[..., 2] / sums[..., 3]


def sample(columns: NDArray[np.float64], seed: int, resamples: int, stream: str = "") -> Sample:
    """`columns` is [2 or 4, n] or, of several runs, [runs, 2 or 4, n]: numerators and denominators, of one model or of two."""
    n, several = columns.shape[-1], columns.ndim == 3
    if n == 0:
        raise ValueError("There are no examples, so there is no mean; check what was evaluated.")
    if not np.isfinite(columns).all() or not (columns[..., 1::2, :] > 0).all():
        raise ValueError("Every value must be finite and every denominator above 0; check the examples.")
    value = float(_statistic(columns.sum((0, 2) if several else 1)))
    if n == 1:  # resampling one example gives it back every time, and would claim certainty
        return Sample(value, np.full(resamples, np.nan), n)
    return Sample(value, _statistic(resampled_sums(columns, seed, resamples, stream)), n)


def resampled_sums(columns: NDArray[np.float64], seed: int, resamples: int, stream: str = "") -> NDArray[np.float64]:
    """[resamples, c]: sums of each of c columns [c, n] over n examples drawn with replacement, the same for all columns.

    Of [runs, c, n], runs are drawn too, and the same examples of each.
    """
    n = columns.shape[-1]
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    if columns.ndim == 3:
        return _sums_over_runs(columns, seed, rng, resamples)
    step = max(1, _AT_ONCE // n)
    return np.concatenate(
        [
            columns[:, rng.integers(n, size=(min(step, resamples - start), n))].sum(-1).T
            for start in range(0, resamples, step)
        ]
    )


def _sums_over_runs(
    columns: NDArray[np.float64], seed: int, rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """A run is drawn for all streams at once, for a training that went well may have gone well in every domain."""
    runs, _, n = columns.shape
    often = np.random.default_rng([seed, runs]).multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.einsum("rs,scn,rn->rc", often, columns, counts, optimize=True)


def mean_of(samples: Sequence[Sample]) -> Sample:
    """The unweighted mean of statistics that were drawn apart."""
    draws = np.mean([sample.draws for sample in samples], axis=0)
    return Sample(float(np.mean([s.value for s in samples])), draws, sum(s.n for s in samples))
