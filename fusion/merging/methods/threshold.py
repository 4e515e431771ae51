"""The exact value above which a given fraction of many numbers lies, in two passes and constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor, dtype, float32, float64

Piece = TypeVar("Piece")
Each = Callable[[Callable[[Piece], None]], None]
"""Calls a function once for every piece, on any number of threads."""
Values = Callable[[Piece], Sequence[Float[Tensor, " n"]]]
Fractions = Sequence[float | Fraction]
Bits = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]
BIN = 1 << 16
"""Patterns of bits that share the upper 16."""
STRIDE = 7
"""A first look takes every so-many-th number."""
WIDEST = 16
"""Bins that a first look may leave in question; where it leaves more, all numbers are looked at."""


def thresholds(each: Each[Piece], values: Values[Piece], fractions: Fractions, *, nonzero: bool = False) -> list[float]:
    """For each of several sequences the smallest of its `fraction` largest numbers.

    Whoever keeps `x >= threshold` keeps ties with it as well. The numbers are float32, not negative, and come in
    pieces; `each` goes over all pieces, twice. A fraction counts among all numbers, or among those that are not zero,
    is rounded down to whole numbers (of the decimal as written: 0.29 of 100 are 29), and means at least one. Where
    there is nothing to count, infinity: nothing is kept.

    Non-negative floats sort as their bits do. The first pass counts every seventh by the upper 16 bits, which tells in
    which few bins the answer lies; the second counts all that lie above, and by every bit those within. Where the
    sample has misled, both are done again without one. No sort, no copy of the numbers, no rounding.
    """
    found: list[float | None] = [None]
    for stride in (STRIDE, 1):
        ranges = _ranges(each, values, fractions, stride, nonzero)
        if max(high - low for low, high in ranges) <= WIDEST * BIN:
            found = _within(each, values, fractions, ranges, nonzero)
        if None not in found:
            break
    return [threshold for threshold in found if threshold is not None]


def edge(threshold: float, of: dtype = float64) -> float:
    """The largest number of that type that rounds to less than the float32 `threshold`: all larger ones reach it."""
    wanted = np.float32(threshold)
    below = float(np.nextafter(wanted, np.float32(0)))
    if of == float32:
        return below
    middle = below + (float(wanted) - below) / 2  # a float64 halfway rounds to the even one of its two neighbours
    return math.nextafter(middle, 0) if int(wanted.view(np.uint32)) % 2 == 0 else middle


def _ranges(
    each: Each[Piece], values: Values[Piece], fractions: Fractions, stride: int, nonzero: bool
) -> list[tuple[int, int]]:
    """For each sequence the patterns of bits, from the first up to the second, that its threshold is among."""
    counts, lock = np.zeros((len(fractions), 1 << 15), dtype=np.int64), Lock()

    def count(piece: Piece) -> None:
        for upper, numbers in zip(counts, values(piece), strict=True):
            sampled = _bits(numbers)[::stride]
            places = (sampled[sampled > 0] if nonzero else sampled) >> 16
            with lock:
                np.add.at(upper, places, 1)

    each(count)
    return [_range(*of_one, stride) for of_one in zip(fractions, counts, strict=True)]


def _range(fraction: float | Fraction, counts: Counts, stride: int) -> tuple[int, int]:
    """Of a sample: as far as four standard deviations of a rank to either side. Of all numbers: one bin."""
    count = int(counts.sum())
    rank = _rank(fraction, count)
    slack = math.isqrt(16 * rank * (count - rank) // count) + 1 if stride > 1 and count else 0
    ranks = (max(1, rank - slack), min(rank + slack, count))
    first, last = (_place(counts, r) for r in ranks)
    return (last * BIN, (first + 1) * BIN) if count else (0, BIN)


def _within(
    each: Each[Piece], values: Values[Piece], fractions: Fractions, ranges: list[tuple[int, int]], nonzero: bool
) -> list[float | None]:
    """For each sequence its threshold, or None where that is outside the range."""
    counts = [np.zeros(high - low, dtype=np.int64) for low, high in ranges]
    above, count, lock = [0] * len(ranges), [0] * len(ranges), Lock()

    def look(piece: Piece) -> None:
        for s, numbers in enumerate(values(piece)):
            (low, high), bits = ranges[s], _bits(numbers)
            higher = bits >= high
            places = bits[(bits >= low) ^ higher] - np.uint32(low)
            with lock:  # whole numbers: the order of threads changes nothing
                above[s] += int(np.count_nonzero(higher))
                count[s] += int(np.count_nonzero(bits)) if nonzero else bits.size
                np.add.at(counts[s], places, 1)

    each(look)
    lows = [low for low, _ in ranges]
    return [_answer(*of_one) for of_one in zip(fractions, lows, counts, above, count, strict=True)]


def _answer(fraction: float | Fraction, low: int, counts: Counts, above: int, count: int) -> float | None:
    rank = _rank(fraction, count) - above
    if count and not 0 < rank <= counts.sum():
        return None
    return float(np.uint32(low + _place(counts, rank)).view(np.float32)) if count else math.inf


def _rank(fraction: float | Fraction, count: int) -> int:
    """How many of `count` a fraction means."""
    return max(1, math.floor(Fraction(str(fraction)) * count)) if count else 0


def _place(counts: Counts, rank: int) -> int:
    """The bin that holds the `rank`-th largest, counted from 1."""
    return len(counts) - 1 - int(np.searchsorted(counts[::-1].cumsum(), rank))


def _bits(numbers: Float[Tensor, " n"]) -> Bits:
    return numbers.cpu().numpy().view(np.uint32)
