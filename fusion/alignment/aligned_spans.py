"""Spans of text from one boundary that two models share to the next: every row of either lies in one."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from fusion.core.rows import Pairs, Positions
from fusion.core.spans import AlignedSpans


def align_spans(pivot: Positions, source: Positions, pairs: Pairs) -> AlignedSpans:
    """Advance from pair to pair: a span begins with each pair of rows and closes where the next pair begins on both sides.

    The last pair of an example is a span where both rows are the last there and predict the end of the turn; elsewhere its
    text has no common end and it is none.
    """
    pivot_pair, source_pair = _last_pair(pivot, pairs.pivot), _last_pair(source, pairs.source)
    pivot_next, source_next = _next_pair(pivot, pairs.pivot), _next_pair(source, pairs.source)
    both_end = pivot.is_last[pairs.pivot] & source.is_last[pairs.source]
    is_span = (pivot_next == source_next) & ((pivot_next >= 0) | both_end)
    span = torch.where(is_span, is_span.cumsum(0) - 1, -1)
    span = torch.cat([span, span.new_tensor([-1])])  # so that -1 stays -1
    return AlignedSpans(is_span.nonzero()[:, 0], span[pivot_pair], span[source_pair])


def _last_pair(rows: Positions, row_of_pair: Int[Tensor, " M"]) -> Int[Tensor, " N"]:
    """For each row, the last pair of its example that begins at or before it; -1 for none."""
    pair = torch.full((len(rows),), -1, device=row_of_pair.device)
    pair[row_of_pair] = torch.arange(len(row_of_pair), device=row_of_pair.device)
    row = torch.arange(len(rows), device=row_of_pair.device)
    start = torch.where(pair >= 0, row, -1).cummax(0).values if len(rows) else row
    known = (start >= 0) & (rows.example[start] == rows.example)
    return torch.where(known, pair[start], -1)


def _next_pair(rows: Positions, row_of_pair: Int[Tensor, " M"]) -> Int[Tensor, " M"]:
    """For each pair, the next pair of its example in the order of these rows; -1 for none."""
    order = row_of_pair.argsort()
    following = order.roll(-1)
    this_row, next_row = row_of_pair[order], row_of_pair[following]
    same = (rows.example[this_row] == rows.example[next_row]) & (next_row > this_row)
    return torch.empty_like(order).index_copy(0, order, torch.where(same, following, -1))
