"""The true token and the others taught apart: normalised knowledge distillation, and a version without any source."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.core.tail import log1mexp
from fusion.objectives.base_classes import MappedObjective, RowObjective
from fusion.objectives.token.outcomes import cross_entropy, gold_first


class NKD(MappedObjective):
    """How sure the source is of the true token, and its ratios among all others, as two separate terms.

    -P log q on the true token, P the source's probability of it, and `gamma` times the cross-entropy between the
    distributions over the other tokens (and `other`), each normalised without the true one. The second term does not move the
    logit of the true token. Not least where pivot and source agree: the first wants certainty. Where P is unknown there is
    the second term alone, over all tokens.

    Source: Yang et al. 2023, arXiv:2303.13005, at temperature 1 (at others the mass left over is not known).
    Written for images; text changes only what the other classes are.
    """

    kind: Literal["nkd"] = "nkd"
    gamma: float = Field(default=1.5, ge=0)
    """Weight of the other tokens. The paper's value for ImageNet."""
    top_k: int | None = Field(default=None, ge=1)
    """Use at most this many of the source's entries, the most likely ones; None uses all that are mapped."""

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, in nats, never negative."""
        both = gold_first(pivot, source, self.top_k).with_other()
        target = cross_entropy(both.source[:, :1], both.pivot[:, :1])
        others = [values[:, 1:].log_softmax(-1) for values in (both.source, both.pivot)]
        return target + self.gamma * cross_entropy(*others)


class USKD(RowObjective):
    """A soft target that the pivot makes for itself: no source takes part.

    The true token counts `alpha` (p² + 1 - mean of p² over the example), p the pivot's own probability of it and constant
    there; the `top_k` most likely others are taught, with weight `beta`, to fall off by rank as Zipf's law does. It reaches
    all rows, also those that no source matches.

    Source: the teacher-free method of Yang et al. 2023, arXiv:2303.13005. Its second head on a middle layer is
    left out, so ranks are the pivot's last layer's alone; its mean runs over a batch of images, ours over the example.
    """

    kind: Literal["uskd"] = "uskd"
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the true token."""
    beta: float = Field(default=0.1, ge=0)
    """Weight of the others."""
    top_k: int = Field(default=10, ge=1)
    """How many others follow Zipf's law; the whole vocabulary would be noise. A guess."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return self.top_k + 1

    def __call__(self, pivot: LogitRows) -> Float[Tensor, " N"]:
        """One value for each row, in nats, never negative. Raises ValueError where the rows' following tokens are unknown."""
        if pivot.token is None:
            raise ValueError("uskd needs the token that follows each pivot row, and `pivot.token` is None.")
        top = pivot.top(self.top_k + 1)
        is_gold = top.ids == pivot.token[:, None]
        rank = (~is_gold).cumsum(-1)
        worth = torch.where(is_gold | (rank > self.top_k), 0, 1 / rank.clamp(min=1)).to(top.logprobs)
        others = top.logprobs - log1mexp(pivot.gold.clamp(max=-torch.finfo(pivot.gold.dtype).eps))[:, None]
        zipf = worth / worth.sum(-1, keepdim=True)
        return -self.alpha * own_target(pivot.gold, pivot.example) * pivot.gold - self.beta * (zipf * others).sum(-1)


@torch.no_grad()
def own_target(gold: Float[Tensor, " N"], example: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """p² + 1 - mean of p² over the example, p = exp(gold): 1 on average in each example."""
    square = (2 * gold).exp()
    _, number = example.unique(return_inverse=True)
    count = max(1, int(number.max()) + 1) if len(number) else 1
    mean = square.new_zeros(count).index_add(0, number, square) / torch.bincount(number, minlength=count).clamp(min=1)
    return square + 1 - mean[number]
