"""Alignment by place: the t-th response token of one model with the t-th of the other, right or wrong."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from fusion.alignment.prefix import match_keys
from fusion.core.rows import Pairs, Positions


def truncate(pivot: Positions, source: Positions) -> Pairs:
    """Pair the t-th row of each example with the t-th, up to the shorter of the two; prefixes are not looked at.

    After the first place where the tokenizers differ the two rows of a pair predict different text.

    Source: Boizard et al. 2024 (Universal Logit Distillation), arXiv:2402.12030, as its released code aligns.
    """
    places = [_places(rows.example) for rows in (pivot, source)]
    width = 1 + max((int(place.max()) for place in places if len(place)), default=0)
    return match_keys(pivot.example.long() * width + places[0], source.example.long() * width + places[1])


def _places(example: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Place of each row in its example, from 0; rows of one example are neighbours."""
    index = torch.arange(len(example), device=example.device)
    begins = torch.ones_like(example, dtype=torch.bool)
    begins[1:] = example[1:] != example[:-1]
    return index - torch.where(begins, index, 0).cummax(0).values
