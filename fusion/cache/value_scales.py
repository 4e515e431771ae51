"""Non-uniform quantization scales for log-probabilities: fine near zero, where most values are, and coarse beyond."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scale:
    """A codebook of 2^bits - 1 ascending values from 0, and a last code for a missing value (NaN).

    After 0 come `floor` and then, by the factor `ratio`, values up to where neighbours are `step` apart; from there
    steps of `step` up to `knee`, and from the knee to `maximum` a constant factor again. So the error is at most (ratio - 1)/2
    of the value and at most step/2 up to the knee.
    """

    bits: int
    floor: float
    ratio: float
    step: float
    knee: float
    maximum: float

    @functools.cached_property
    def table(self) -> NDArray[np.float32]:
        """Value of each code; NaN for the last."""
        values = [0.0, self.floor]
        while values[-1] < self.knee and len(values) < self.num_codes:
            values.append(values[-1] + min(values[-1] * (self.ratio - 1), self.step))
        remaining = self.num_codes - len(values)
        growth = (self.maximum / values[-1]) ** (1 / remaining) if remaining else 1.0
        far = itertools.accumulate(itertools.repeat(growth, remaining), lambda a, b: a * b, initial=values[-1])
        return np.array([*values[:-1], *far, math.nan], np.float32)

    @property
    def num_codes(self) -> int:
        """Number of codes with a value, which is also the code of a missing value."""
        return (1 << self.bits) - 1

    def encode(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the codes of the nearest values; values are clamped to 0 and `maximum`, NaN is the missing value."""
        known = np.isfinite(values) | np.isposinf(values)
        return np.where(known, np.searchsorted(self._midpoints, np.where(known, values, 0)), self.num_codes)

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the values of codes; NaN for the missing value."""
        return self.table[codes]

    @functools.cached_property
    def _midpoints(self) -> NDArray[np.float32]:
        values = self.table[:-1].astype(np.float64)
        return ((values[1:] + values[:-1]) / 2).astype(np.float32)


TOP = Scale(bits=9, floor=1e-7, ratio=1.06, step=0.06, knee=14.8, maximum=14.9)
"""-logprob of a row's largest entry, which is at most the logarithm of the vocabulary; within 3% or 0.03 nat."""
GAP = Scale(bits=9, floor=0.01, ratio=1.06, step=0.06, knee=23.0, maximum=1e5)
"""From one entry to the next; within 0.03 nat up to 23 nats, within 7% beyond (a probability ratio of 10^-10)."""
GOLD = Scale(bits=11, floor=1e-7, ratio=1.03, step=0.03, knee=40.0, maximum=1e5)
"""-logprob of the true token; within 1.5% or 0.015 nat up to 40 nats."""
MEAN = Scale(bits=12, floor=0.016, ratio=1.02, step=0.016, knee=56.0, maximum=1e5)
"""-mean of the logits in the gauge logsumexp = 0; within 0.008 up to 56."""
STD = Scale(bits=11, floor=1e-4, ratio=1.0, step=0.0, knee=0.0, maximum=1e4)
"""Standard deviation of the logits; within 0.5%."""
