"""The exact value above which a given fraction of many numbers lies, in two passes and constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction

import torch
from jaxtyping import Float, Int
from torch import Tensor


def threshold(blocks: Callable[[], Iterable[Float[Tensor, " n"]]], fraction: float, *, nonzero: bool = False) -> float:
    """The smallest of the `fraction` largest numbers; whoever keeps `x >= threshold` keeps ties with it as well.

    The numbers are float32, not negative, and come in blocks, twice: `blocks()` starts over. The fraction counts among
    all of them, or among those that are not zero, is rounded down to whole numbers (of the decimal as written: 0.29 of
    100 are 29), and means at least one. Where there is nothing to count, infinity: nothing is kept.

    Non-negative floats sort as their bits do. The first pass counts by the upper 16 bits and finds the bin of the
    answer, the second counts by the lower 16 within that bin. No sort, no copy of the numbers, no rounding.
    """
    upper, zeros = torch.zeros(1 << 15, dtype=torch.int64), 0
    for block in blocks():
        upper += torch.bincount(block.view(torch.int32) >> 16, minlength=len(upper)).cpu()
        zeros += block.numel() - int(block.count_nonzero()) if nonzero else 0
    total = int(upper.sum()) - zeros
    if total == 0:
        return math.inf
    high, rank = _bin_of(upper, max(1, math.floor(Fraction(str(fraction)) * total)))
    lower = torch.zeros(1 << 16, dtype=torch.int64)
    for block in blocks():
        bits = block.view(torch.int32)
        lower += torch.bincount(bits[bits >> 16 == high] & 0xFFFF, minlength=len(lower)).cpu()
    low, _ = _bin_of(lower, rank)
    return torch.tensor(high << 16 | low, dtype=torch.int32).view(torch.float32).item()


def _bin_of(counts: Int[Tensor, " bins"], rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th largest, counted from 1, and its rank within that bin."""
    reached = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(reached, rank))
    return len(counts) - 1 - place, rank - int(reached[place] - counts.flip(0)[place])
