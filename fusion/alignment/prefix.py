"""Alignment by byte prefix: rows that have consumed the same bytes of the same response predict the same text."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from fusion.core.rows import Pairs, Positions


def match_prefixes(pivot: Positions, source: Positions) -> Pairs:
    """Pair the rows that have the same example and the same prefix, in the order of the pivot's rows.

    Both models are then conditioned on the same bytes of the response, whatever their tokens, prompt or BOS. A row with
    prefix -1 has no pair. Where several rows of one model share a prefix (tokens without a byte, as the space that some
    tokenizers put before the text) the last of them counts: it is the one that predicts text.

    O(N log N), on the device of the rows; O(N) where both sides come in the order of examples and text, as they do from
    caches and batches.
    """
    width = 1 + max((int(rows.prefix.max()) for rows in (pivot, source) if len(rows)), default=0)
    return match_keys(_keys(pivot, width), _keys(source, width))


def match_keys(pivot: Int[Tensor, " N"], source: Int[Tensor, " N2"]) -> Pairs:
    """Pair equal keys, in the order of `pivot`; negative keys match nothing, of equal keys the last counts."""
    pivot_rows, source_rows = _last_of_each(pivot), _last_of_each(source)
    keys, order = _sorted(source[source_rows])
    if not len(keys):
        return Pairs(source_rows, source_rows)
    place = torch.searchsorted(keys, pivot[pivot_rows]).clamp(max=len(keys) - 1)
    is_match = keys[place] == pivot[pivot_rows]
    return Pairs(pivot_rows[is_match], source_rows[order[place[is_match]]])


def _keys(rows: Positions, width: int) -> Int[Tensor, " N"]:
    """One number for example and prefix; -1 where the prefix is not known."""
    return torch.where(rows.prefix < 0, -1, rows.example.long() * width + rows.prefix.long())


def _last_of_each(keys: Int[Tensor, " N"]) -> Int[Tensor, " M"]:
    """Where each non-negative key occurs last, in rising order of place."""
    known = (keys >= 0).nonzero()[:, 0]
    ordered, order = _sorted(keys[known])
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return known[_sorted(order[last])[0]]


def _sorted(keys: Int[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """The keys in rising order, equal ones as they came, and the place of each; keys in order already are left alone."""
    if bool((keys[1:] >= keys[:-1]).all()):
        return keys, torch.arange(len(keys), device=keys.device)
    ordered, order = keys.sort(stable=True)
    return ordered, order
