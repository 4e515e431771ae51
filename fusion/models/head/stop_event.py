"""Several ids by which a model says the same, that an answer is over, as one event of its distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

NEVER = -1e4
"""Logit of an id that stands for no event of its own; finite, so that 0 times its logarithm is 0."""


def merge_events(logits: Float[Tensor, "N V"], ids: Sequence[int]) -> Float[Tensor, "N V"]:
    """Give the first of the ids the probability of all of them together, and the others none.

    The sum over the vocabulary stays what it was, and so does every other probability. Changes `logits` in place; the gradient
    goes to each of the ids by its share.
    """
    if len(ids) < 2:
        return logits
    index = torch.tensor(ids, device=logits.device)
    together = logits[:, index].logsumexp(-1, keepdim=True)
    return logits.index_copy_(1, index, torch.cat([together, torch.full_like(logits[:, index[1:]], NEVER)], dim=1))


def first_of_event(token: Int[Tensor, "*N"], ids: Sequence[int]) -> Int[Tensor, "*N"]:
    """Return token ids with the first of `ids` in the place of each of them."""
    if len(ids) < 2:
        return token
    return token.masked_fill(torch.isin(token, torch.tensor(ids, device=token.device)), ids[0])


def events(logits: Float[Tensor, "N V"], ids: Sequence[int]) -> Float[Tensor, "N W"]:
    """Return merged logits without the ids that stand for no event of their own."""
    kept = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    kept[list(ids[1:])] = False
    return logits[:, kept]
