"""Controls for rounds: advantages that know nothing of any source or reward, and came close to distillation when published."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.objectives.base import Requirements
from fusion.objectives.policy.base import RolloutObjective
from fusion.objectives.policy.rollouts import RolloutRows


class LeastLikely(RolloutObjective):
    """Of each text, the tokens that were least likely when they were drawn become less likely by a fixed amount.

    It sharpens the pivot, no more. Distillation from a source that does no better has taught nothing of the source.

    Source: the control of arXiv:2608.31046 (-0.5 on a fifth of the sampled tokens). That the fifth is one of each text, and by
    the probability at writing, is a guess.
    """

    kind: Literal["least_likely"] = "least_likely"
    fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of each text's tokens, rounded up."""
    advantage: float = Field(default=-0.5, lt=0)
    """The advantage of these tokens; that of all others is 0."""

    def compute_advantages(self, rollouts: RolloutRows) -> Float[Tensor, " M"]:
        """The fixed advantage at the least likely tokens, 0 elsewhere."""
        chosen = least_likely(rollouts.old_logprobs, rollouts.pivot.example, self.fraction)
        return chosen.to(rollouts.old_logprobs) * self.advantage


class OPSA(RolloutObjective):
    """As `least_likely`, by an amount that grows with the pivot's own entropy: -1/2 - (H - H_min) / (2 (H_max - H_min)).

    H is the entropy of the pivot at the token, as it is at this step; H_min and H_max are the least and the largest among the
    chosen tokens of the text. So advantages go from -1/2 to -1; all are -1/2 where H is the same everywhere.

    It reads the whole distribution at each row, so that a step keeps all log-probabilities of its rows.

    Source: OPSA as arXiv:2608.31046 tries it, unsupervised. Which tokens the bounds are taken over is a guess.
    """

    kind: Literal["opsa"] = "opsa"
    fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of each text's tokens, rounded up."""

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, pivot_top_k=None)  # entropy is of the whole vocabulary

    @torch.no_grad()
    def compute_advantages(self, rollouts: RolloutRows) -> Float[Tensor, " M"]:
        """From -1/2 to -1 at the least likely tokens, 0 elsewhere."""
        example, old = rollouts.pivot.example, rollouts.old_logprobs
        chosen = least_likely(old, example, self.fraction)
        entropy = torch.special.entr(rollouts.pivot.logprobs.to(old).exp()).sum(-1)
        place, values = example[chosen], entropy[chosen]
        texts = old.new_zeros(int(example.max()) + 1 if len(example) else 0)
        low = texts.scatter_reduce(0, place, values, "amin", include_self=False)[place]
        high = texts.scatter_reduce(0, place, values, "amax", include_self=False)[place]
        # where all are alike both differences are 0
        share = (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
        return torch.zeros_like(old).masked_scatter(chosen, -0.5 - share / 2)


def least_likely(logprobs: Float[Tensor, " M"], example: Int[Tensor, " M"], fraction: float) -> Bool[Tensor, " M"]:
    """Whether each row is among the least likely `fraction` of its example's rows, a number that is rounded up."""
    counts = torch.bincount(example)
    order = logprobs.argsort(stable=True)
    order = order[example[order].argsort(stable=True)]  # by example, and inside it by probability
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[example[order]]
    # a hair less: 0.07 * 100 is above 7 in floating point
    chosen = rank < (fraction * counts.double() - 1e-6).ceil()[example[order]]
    return torch.zeros_like(chosen).index_copy(0, order, chosen)
