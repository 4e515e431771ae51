"""The exact value above which a given fraction of many numbers lies, in two passes and constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

Piece = TypeVar("Piece")
ForEach = Callable[[Callable[[Piece], None]], None]
"""Calls a function once for every piece, on any number of threads."""
PieceValues = Callable[[Piece], Sequence[Float[Tensor, " n"]]]
Fractions = Sequence[float | Fraction]
Bits = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]
BIN = 1 << 16
"""Bit patterns in a bin: those that share the upper 16 bits."""
STRIDE = 7
"""The first pass samples every seventh number."""
MAX_BINS = 16
"""Bins that the sample may leave in question; where it leaves more, all numbers are counted."""


def thresholds(
    for_each: ForEach[Piece], values: PieceValues[Piece], fractions: Fractions, *, nonzero: bool = False
) -> list[float]:
    """Find, for each of several sequences, the smallest of its `fraction` largest numbers.

    Keeping `x >= threshold` keeps ties with it as well. The numbers are float32, not negative, and come in
    pieces; `for_each` goes over all pieces, twice. A fraction counts among all numbers, or among those that are not zero,
    is rounded down to whole numbers (of the decimal as written: 0.29 of 100 are 29), and means at least one. Where
    there is nothing to count, infinity: nothing is kept.

    Non-negative floats sort as their bits do. The first pass counts every seventh by the upper 16 bits, which tells in
    which few bins the answer lies; the second counts all that lie above, and by every bit those within. Where the
    sample has misled, both are done again without one. No sort, no copy of the numbers, no rounding.
    """
    results: list[float | None] = [None]
    for stride in (STRIDE, 1):
        ranges = _ranges(for_each, values, fractions, stride=stride, nonzero=nonzero)
        if max(high - low for low, high in ranges) <= MAX_BINS * BIN:
            results = _within(for_each, values, fractions, ranges=ranges, nonzero=nonzero)
        if None not in results:
            break
    return [result for result in results if result is not None]


def largest_below(threshold: float, dtype: torch.dtype = torch.float64) -> float:
    """The largest number of `dtype` that rounds to less than the float32 `threshold`; all larger ones round to it or more."""
    exact = np.float32(threshold)
    below = float(np.nextafter(exact, np.float32(0)))
    if dtype == torch.float32:
        return below
    middle = below + (float(exact) - below) / 2  # a float64 halfway rounds to the even one of its two neighbours
    return math.nextafter(middle, 0) if int(exact.view(np.uint32)) % 2 == 0 else middle


def _ranges(
    for_each: ForEach[Piece], values: PieceValues[Piece], fractions: Fractions, *, stride: int, nonzero: bool
) -> list[tuple[int, int]]:
    """For each sequence the range [low, high) of bit patterns that holds its threshold."""
    counts, lock = np.zeros((len(fractions), 1 << 15), dtype=np.int64), Lock()

    def count(piece: Piece) -> None:
        for upper, numbers in zip(counts, values(piece), strict=True):
            sampled = _bits(numbers)[::stride]
            bins = (sampled[sampled > 0] if nonzero else sampled) >> 16
            with lock:
                np.add.at(upper, bins, 1)

    for_each(count)
    return [_range(*sequence, stride) for sequence in zip(fractions, counts, strict=True)]


def _range(fraction: float | Fraction, counts: Counts, stride: int) -> tuple[int, int]:
    """The bit patterns to search: of a sample four standard deviations of the rank to either side, of all numbers one bin."""
    count = int(counts.sum())
    rank = _rank(fraction, count)
    slack = math.isqrt(16 * rank * (count - rank) // count) + 1 if stride > 1 and count else 0
    ranks = (max(1, rank - slack), min(rank + slack, count))
    first, last = (_bin_of_rank(counts, r) for r in ranks)
    return (last * BIN, (first + 1) * BIN) if count else (0, BIN)


def _within(
    for_each: ForEach[Piece],
    values: PieceValues[Piece],
    fractions: Fractions,
    *,
    ranges: list[tuple[int, int]],
    nonzero: bool,
) -> list[float | None]:
    """For each sequence its threshold, or None where that lies outside its range."""
    counts = [np.zeros(high - low, dtype=np.int64) for low, high in ranges]
    above, total, lock = [0] * len(ranges), [0] * len(ranges), Lock()

    def count(piece: Piece) -> None:
        for s, numbers in enumerate(values(piece)):
            (low, high), bits = ranges[s], _bits(numbers)
            higher = bits >= high
            inside = bits[(bits >= low) ^ higher] - np.uint32(low)
            with lock:  # whole numbers: the order of threads changes nothing
                above[s] += int(np.count_nonzero(higher))
                total[s] += int(np.count_nonzero(bits)) if nonzero else bits.size
                np.add.at(counts[s], inside, 1)

    for_each(count)
    lows = [low for low, _ in ranges]
    return [_threshold(*sequence) for sequence in zip(fractions, lows, counts, above, total, strict=True)]


def _threshold(fraction: float | Fraction, low: int, counts: Counts, above: int, count: int) -> float | None:
    """The number at the fraction's rank among `count`, `above` of them above all bins of `counts`; None if in none of these."""
    rank = _rank(fraction, count) - above
    if count and not 0 < rank <= counts.sum():
        return None
    return float(np.uint32(low + _bin_of_rank(counts, rank)).view(np.float32)) if count else math.inf


def _rank(fraction: float | Fraction, count: int) -> int:
    """How many of `count` numbers a fraction means: rounded down, at least one."""
    return max(1, math.floor(Fraction(str(fraction)) * count)) if count else 0


def _bin_of_rank(counts: Counts, rank: int) -> int:
    """The bin that holds the `rank`-th largest, counted from 1."""
    return len(counts) - 1 - int(np.searchsorted(counts[::-1].cumsum(), rank))


def _bits(numbers: Float[Tensor, " n"]) -> Bits:
    return numbers.cpu().numpy().view(np.uint32)
