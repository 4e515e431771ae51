"""Likely tokens matched one to one, by probability and by spelling: between a map and a comparison by rank."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.core.tail import with_other
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import PairObjective
from fusion.objectives.checks import as_target
from fusion.objectives.modules.base import ModuleObjective, ModuleSpec
from fusion.objectives.token.outcomes import divergence


class Hungarian(ModuleObjective, PairObjective):
    """Each of the source's likeliest tokens is compared with the one of the pivot's that it is matched with.

    The matching is the one with the least sum of costs

        probability * |log P - log p| + spelling * distance(bytes, bytes)

    and is a constant of the step. Tokens without a partner are part of `other`, what is left of the mass, on both sides.
    `spelling` alone is a map between the likely tokens, `probability` alone a comparison by rank: with `difference`
    and `l1` it is ULD on the matched values.

    Matching is done on the CPU, row by row: some 10 microseconds a row for 10 tokens, 50 for 32.

    Source: the matching of predictions in DETRDistill, Chang et al. 2023, arXiv:2211.10156 (detection of objects), of
    tokens here. Boxes, features and the teacher's queries have no counterpart. All weights are guesses.
    """

    kind: Literal["hungarian"] = "hungarian"
    top_k: int = Field(default=10, ge=1, le=32)
    """How many of the source's tokens."""
    candidates: int = Field(default=16, ge=1, le=64)
    """How many of the pivot's: with more than the source's, a token that the pivot finds less likely may still be found."""
    probability: float = Field(default=1.0, ge=0)
    """Cost of a difference between probabilities."""
    spelling: float = Field(default=5.0, ge=0)
    """Cost of a difference between spellings, whose greatest is 1."""
    difference: Literal["logarithms", "probabilities"] = "logarithms"
    """What is subtracted for the first cost: nats, or probabilities."""
    loss: Literal["kl", "l1"] = "kl"
    """What is made of the matched: KL(source ‖ pivot) over the pairs and `other`, or the sum of differences of probability."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return self.top_k

    @property
    @override
    def requirements(self) -> Requirements:
        # the tables of spellings are a module without parameters
        return dataclasses.replace(super().requirements, pivot_top_k=self.candidates, trains_module=False)

    @override
    def build_module(self, spec: ModuleSpec) -> nn.Module:
        return spec.spelling_distance()

    def __call__(self, pivot: LogitRows, source: LogitRows, module: nn.Module | None = None) -> Float[Tensor, " M"]:
        """Compute one value for each pair, never negative: in nats, or (l1) from 0 to 2.

        `module` gives the distance of spellings, 0 to 1, of pivot ids [M, L] and source ids [M, K] as [M, K, L]. Raises
        ValueError without it.
        """
        if module is None:
            raise ValueError("hungarian compares spellings through a module, made by `build_module`.")
        target, candidates = as_target(source, pivot).top(self.top_k), pivot.ids[:, : self.candidates]
        distance = module(candidates, target.ids)
        pivot_logprobs = pivot.logprobs[:, : self.candidates]
        cost = self.cost(target.logprobs, pivot_logprobs.detach(), distance)
        log_p, log_q = (with_other(each) for each in matched(target.logprobs, pivot_logprobs, assign(cost)))
        return divergence(log_p, log_q) if self.loss == "kl" else (log_p.exp() - log_q.exp()).abs().sum(-1)

    def cost(
        self, source: Float[Tensor, "M K"], pivot: Float[Tensor, "M L"], distance: Float[Tensor, "M K L"]
    ) -> Float[Tensor, "M K L"]:
        """Of matching each of the source's tokens with each of the pivot's; infinite where either entry is empty."""
        source_values, pivot_values = (each.double() for each in (source, pivot))
        empty = source_values.isneginf()[:, :, None] | pivot_values.isneginf()[:, None, :]
        if self.difference == "probabilities":
            source_values, pivot_values = source_values.exp(), pivot_values.exp()
        apart = (source_values[:, :, None] - pivot_values[:, None, :]).abs()
        return (self.probability * apart + self.spelling * distance).masked_fill(empty, torch.inf)


def assign(cost: Float[Tensor, "M K L"]) -> Int[Tensor, "M K"]:
    """The column matched with each row of each matrix, all different, so that the sum is least; -1 for none.

    As many are matched as can be; infinite costs are never paid.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and every configuration reads this file

    values = cost.cpu().numpy()
    possible = np.isfinite(values)
    # a finite price so high that no saving elsewhere is worth it
    price = 1 + 2 * min(values.shape[1:], default=0) * values.max(initial=0, where=possible)
    payable = np.where(possible, values, price)
    found = np.full(values.shape[:2], -1)
    for number, matrix in enumerate(payable):
        row, column = linear_sum_assignment(matrix)
        found[number, row] = np.where(possible[number, row, column], column, -1)
    return torch.from_numpy(found).to(cost.device)


def matched(
    source: Float[Tensor, "M K"], pivot: Float[Tensor, "M L"], match: Int[Tensor, "M K"]
) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M K"]]:
    """Log-probabilities of the pairs on both sides, -inf for a token without a partner."""
    alone = match < 0
    return source.masked_fill(alone, -torch.inf), pivot.gather(1, match.clamp(min=0)).masked_fill(alone, -torch.inf)
