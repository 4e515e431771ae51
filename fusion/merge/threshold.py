"""The exact value above which a given fraction of many numbers lies, in two passes and constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Piece = TypeVar("Piece")
Total = Callable[[Callable[[Piece], Shaped[Tensor, "..."]]], Shaped[Tensor, "..."]]
"""Σ over all pieces of what a function gives of one."""


def thresholds(
    total: Total[Piece],
    values: Callable[[Piece], Sequence[Float[Tensor, " n"]]],
    fractions: Sequence[float | Fraction],
    *,
    nonzero: bool = False,
) -> list[float]:
    """For each of several sequences the smallest of its `fraction` largest numbers.

    Whoever keeps `x >= threshold` keeps ties with it as well. The numbers are float32, not negative, and come in
    pieces; `total` goes over all pieces, twice. A fraction counts among all numbers, or among those that are not zero,
    is rounded down to whole numbers (of the decimal as written: 0.29 of 100 are 29), and means at least one. Where
    there is nothing to count, infinity: nothing is kept.

    Non-negative floats sort as their bits do. The first pass counts by the upper 16 bits and finds the bin of the
    answer, the second counts by the lower 16 within that bin. No sort, no copy of the numbers, no rounding.
    """
    upper = total(lambda piece: torch.stack([_upper(numbers, nonzero) for numbers in values(piece)]))
    ranks = [_rank(fraction, int(counts.sum())) for fraction, counts in zip(fractions, upper, strict=True)]
    bins = [_bin_of(counts, rank) if rank else (-1, 0) for counts, rank in zip(upper, ranks, strict=True)]

    def lower(piece: Piece) -> Tensor:
        return torch.stack([_within(numbers, high) for numbers, (high, _) in zip(values(piece), bins, strict=True)])

    return [
        _float(high, _bin_of(counts, rank)[0]) if high >= 0 else math.inf
        for (high, rank), counts in zip(bins, total(lower), strict=True)
    ]


def edge(threshold: float) -> float:
    """The largest float64 that rounds to less than the float32 `threshold`: whoever is larger reaches it in float32."""
    wanted = np.float32(threshold)
    below = float(np.nextafter(wanted, np.float32(0)))
    middle = below + (float(wanted) - below) / 2  # a float64 halfway rounds to the even one of its two neighbours
    return math.nextafter(middle, 0) if int(wanted.view(np.uint32)) % 2 == 0 else middle


def _upper(numbers: Float[Tensor, " n"], nonzero: bool) -> Int[Tensor, " bins"]:
    counts = torch.bincount(numbers.view(torch.int32) >> 16, minlength=1 << 15).cpu()
    if nonzero:
        counts[0] -= numbers.numel() - int(numbers.count_nonzero())
    return counts


def _within(numbers: Float[Tensor, " n"], high: int) -> Int[Tensor, " bins"]:
    bits = numbers.cpu().numpy().view(np.uint32)  # numpy, for torch is slow to pick few by a condition
    return torch.from_numpy(np.bincount(bits[bits >> 16 == high] & 0xFFFF, minlength=1 << 16))


def _rank(fraction: float | Fraction, count: int) -> int:
    """How many of `count` a fraction means."""
    return max(1, math.floor(Fraction(str(fraction)) * count)) if count else 0


def _bin_of(counts: Int[Tensor, " bins"], rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th largest, counted from 1, and its rank within that bin."""
    reached = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(reached, rank))
    return len(counts) - 1 - place, rank - int(reached[place] - counts.flip(0)[place])


def _float(high: int, low: int) -> float:
    return torch.tensor(high << 16 | low, dtype=torch.int32).view(torch.float32).item()
