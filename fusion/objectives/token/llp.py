"""Relations among the tokens of a position: which of two is likelier, and by how much."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base_classes import MappedObjective
from fusion.objectives.token.outcomes import Outcomes, compare, divergence, log_softmax


class LLP(MappedObjective):
    """A margin for every pair of tokens that the source tells apart, and the divergence over the list of tokens.

    The context of a position is the source's mapped entries. Both parts see differences of logits only; the first is 0 once
    the pivot orders all pairs that differ by more than `delta` with that margin, however far apart they are.

    Source: LLP, Guo et al. 2023, arXiv:2210.05801 (predicting links of a graph): a node is a position here, its neighbours the
    likely tokens. Its random far nodes are left out, for a cache holds no scores of random tokens; relations of positions
    are `span_relations`. `delta` in nats is a guess (the paper's 0.1 is of probabilities of links).
    """

    kind: Literal["llp"] = "llp"
    delta: float = Field(default=0.5, ge=0)
    """Margin, in nats; pairs that the source tells apart by no more take no part."""
    rank: float = Field(default=1.0, ge=0)
    """Weight of the margins, summed over pairs."""
    distribution: float = Field(default=1.0, ge=0)
    """Weight of the divergence."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits of both in the divergence."""
    top_k: int = Field(default=10, ge=2, le=64)
    """Use at most this many of the source's entries; pairs grow with its square."""

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair of rows, in nats, never negative."""
        both = compare(pivot, source, self.top_k)
        over = (log_softmax(values / self.temperature, both.empty) for values in (both.source, both.pivot))
        return self.rank * margins(both, self.delta) + self.distribution * divergence(*over)


def margins(both: Outcomes, delta: float) -> Float[Tensor, " M"]:
    """Sum, over pairs of tokens that the source tells apart by more than `delta`, of how much the pivot's margin lacks."""
    there = ~both.empty
    source_difference, pivot_difference = (
        difference(values.masked_fill(both.empty, 0)) for values in (both.source, both.pivot)
    )
    counts = (
        there[:, :, None] & there[:, None, :] & (source_difference > delta)
    )  # each pair once, from its likelier token
    return (delta - pivot_difference).clamp(min=0).masked_fill(~counts, 0).sum((-2, -1))


def difference(values: Float[Tensor, "M K"]) -> Float[Tensor, "M K K"]:
    """Every entry less every other."""
    return torch.sub(values[:, :, None], values[:, None, :])
