"""Intervals in closed form: Wilson's for a share, Newcombe's for a paired difference of shares, Student's over seeds.

An interval is kept as its two arms, how far it reaches below and above the value, so that independent ones add like standard
errors (the method of variance estimates recovery, Zou & Donner 2008): no arm becomes 0 where nothing was seen to vary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.95
SYMMETRY = 0.1
"""Arms that differ by no more than this share of half the width are shown as one, after ±: it is then right to a twentieth."""

Arms = tuple[float, float]
"""How far an interval reaches below its value, and above it; never negative."""
UNBOUNDED: Arms = (math.inf, math.inf)


@dataclass(frozen=True)
class Interval:
    """A value, the ends of its 95% interval, and the number of examples; the ends of a single example's mean are infinite."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2

    @property
    def is_symmetric(self) -> bool:
        """Whether value ± `half` says where the ends are; an interval without ends is."""
        if math.isinf(self.half):
            return True
        return abs((self.high - self.value) - (self.value - self.low)) <= SYMMETRY * self.half

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside of the interval."""
        return value < self.low or value > self.high


def wilson(share: float, n: float) -> Arms:
    """Arms of the 95% score interval of a share of `n` independent examples: never 0 at 0 of n, and never beyond 0 and 1.

    Chosen over Clopper & Pearson's exact interval, whose mean coverage is well above 95% (Agresti & Coull 1998; Brown, Cai &
    DasGupta 2001 recommend Wilson's for small n). `n` may be the effective number of weighted examples.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    z = NormalDist().inv_cdf((1 + COVERAGE) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(max(0.0, share * (1 - share) / n) + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, share - max(0.0, centre - half)), max(0.0, min(1.0, centre + half) - share)


def effective_number(weights: NDArray[np.float64]) -> float:
    """How many examples of one weight say as much as these. Source: Kish 1965, section 8.2."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def paired_share_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], weights: NDArray[np.float64]
) -> Arms:
    """Arms of the 95% interval of one share minus another, of two models with scores [examples] in [0, 1] on the same examples.

    Two Wilson intervals joined by the correlation of the scores, which is taken to be a little less than it looks: so two
    models that never differ are not certain to be equal.

    Source: Newcombe 1998, Statistics in Medicine 17, 2635 to 2650, method 10.
    """
    n, a, b = effective_number(weights), *(float(np.average(scores, weights=weights)) for scores in (first, second))
    (a_below, a_above), (b_below, b_above) = wilson(a, n), wilson(b, n)
    covariance = float(np.average(first * second, weights=weights)) - a * b
    corrected = max(0.0, covariance - 1 / (2 * n)) if covariance > 0 else covariance
    spread = math.sqrt(max(0.0, a * (1 - a) * b * (1 - b)))
    correlation = corrected / spread if spread else 0.0

    def joined(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))

    return joined(a_below, b_above), joined(a_above, b_below)


def t_half_width(values: NDArray[np.float64]) -> float:
    """Half the 95% t interval of the mean of a few independent values, such as one for each seed."""
    from scipy.special import stdtrit  # slow to import

    n = len(values)
    return float(stdtrit(n - 1, (1 + COVERAGE) / 2) * values.std(ddof=1) / math.sqrt(n))


def add_arms(arms: Sequence[Arms]) -> Arms:
    """Arms of a sum of independent estimates, from the arms of each."""
    return math.hypot(*(below for below, _ in arms)), math.hypot(*(above for _, above in arms))
