"""Stretches of text from one boundary that two models share to the next: every row of either lies in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.alignment.map_to_pivot import is_last
from fusion.core.rows import LogitRows, Pairs


@dataclass(frozen=True)
class Stretches:
    """Stretches of a pivot and a source, each with at least one row of both."""

    at: Int[Tensor, " C"]
    """Place, in the pairs, of the pair that begins each stretch."""
    pivot: Int[Tensor, " N"]
    """Number of the stretch that each row of the pivot lies in, -1 for none."""
    source: Int[Tensor, " R"]
    """The same for each row of the source."""

    def __len__(self) -> int:
        return self.at.shape[0]

    def to(self, device: Any) -> Stretches:
        """The same on another device."""
        return Stretches(self.at.to(device), self.pivot.to(device), self.source.to(device))

    def sums(self, values: Float[Tensor, " N"], number: Int[Tensor, " N"]) -> Float[Tensor, " C"]:
        """The sum of `values` over the rows of each stretch; `number` is `pivot` or `source`."""
        inside = number >= 0
        return values.new_zeros(len(self)).index_add(0, number[inside], values[inside])


def stretches(pivot: LogitRows, source: LogitRows, pairs: Pairs) -> Stretches:
    """A stretch begins with each pair and ends before the next pair of the example, which must be the next on both sides.

    The last pair of an example is a stretch where both rows are the last there and predict the end of the turn; elsewhere its
    text has no common end and it is none.
    """
    begun_p, begun_s = _begun(pivot, pairs.pivot), _begun(source, pairs.source)
    next_p, next_s = _next(pivot, pairs.pivot), _next(source, pairs.source)
    both_end = is_last(pivot)[pairs.pivot] & is_last(source)[pairs.source]
    kept = (next_p == next_s) & ((next_p >= 0) | both_end)
    number = torch.where(kept, kept.cumsum(0) - 1, -1)
    number = torch.cat([number, number.new_tensor([-1])])  # so that -1 stays -1
    return Stretches(kept.nonzero()[:, 0], number[begun_p], number[begun_s])


def _begun(rows: LogitRows, at: Int[Tensor, " M"]) -> Int[Tensor, " N"]:
    """For each row, the last pair of its example that begins at or before it; -1 for none."""
    pair = torch.full((len(rows),), -1, device=at.device)
    pair[at] = torch.arange(len(at), device=at.device)
    row = torch.arange(len(rows), device=at.device)
    start = torch.where(pair >= 0, row, -1).cummax(0).values if len(rows) else row
    known = (start >= 0) & (rows.example[start] == rows.example)
    return torch.where(known, pair[start], -1)


def _next(rows: LogitRows, at: Int[Tensor, " M"]) -> Int[Tensor, " M"]:
    """For each pair, the next pair of its example in the order of these rows; -1 for none."""
    order = at.argsort()
    following = order.roll(-1)
    same = (rows.example[at[order]] == rows.example[at[following]]) & (at[following] > at[order])
    return torch.empty_like(order).index_copy(0, order, torch.where(same, following, -1))
