"""Squared differences of logits: the oldest way to distil, kept to compare with."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base_classes import MappedObjective
from fusion.objectives.token.outcomes import compare


class MSE(MappedObjective):
    """Mean over the mapped entries of the squared difference between logits, each side less its mean over those entries.

    The mean is taken out because softmax leaves it free: raw logits of two models differ by a constant that means nothing.
    Differences between unlikely tokens count as much as between likely ones, so this is a baseline and no more.

    Source: the logit term of DAMO-StreamNet, He et al. 2023, arXiv:2303.17144 (detection, where levels do mean something),
    with its weight. Its look into the future is `look_ahead` of a source.
    """

    kind: Literal["mse"] = "mse"
    weight: float = Field(default=0.1, ge=0)
    """Share of this term in the total. The paper's."""
    top_k: int | None = Field(default=None, ge=1)
    """Use at most this many of the source's entries, the most likely ones; None uses all that are mapped."""

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, in square nats: 0 where the two differ by a constant over the entries, or have none."""
        both = compare(pivot, source, self.top_k)
        there = ~both.empty
        apart = centred(both.source, there) - centred(both.pivot, there)
        return (apart**2).sum(-1) / there.sum(-1).clamp(min=1)


def centred(values: Float[Tensor, "M K"], there: Bool[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """Each entry less the mean of those that are there; 0 at the others."""
    values = values.masked_fill(~there, 0)
    mean = values.sum(-1, keepdim=True) / there.sum(-1, keepdim=True).clamp(min=1)
    return (values - mean).masked_fill(~there, 0)
