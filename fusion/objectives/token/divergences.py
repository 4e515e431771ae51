"""Divergences between distributions over mapped tokens: the terms that say *which* token the source means.

With p the source's distribution and q the pivot's, each over the mapped entries and `other` (see `outcomes`):

    forward_kl        KL(p ‖ q)                                   covers all that the source finds possible
    reverse_kl        KL(q ‖ p)                                   gives up what the source finds impossible
    jensen_shannon    b KL(p ‖ m) + (1-b) KL(q ‖ m)               bounded; m = b p + (1-b) q
    skewed_kl         KL(p ‖ a p + (1-a) q), or p and q swapped   KL with its gradients tamed
    l1                sum of |p - q|                              bounded by 2, blind to ratios

Each is never negative, 0 where the two agree, and never above what it is on the whole rows.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.core.tail import log_left_over
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import MappedObjective
from fusion.objectives.token.outcomes import compare, divergence


class Divergence(MappedObjective):
    """A divergence between the distributions over mapped entries and `other`."""

    top_k: int | None = Field(default=None, ge=1)
    """Use at most this many of the source's entries, the most likely ones; None uses all that are mapped."""

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair."""
        both = compare(pivot, source, self.top_k).with_other()
        return self.between(both.source, both.pivot)

    @abstractmethod
    def between(self, log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
        """The divergence of each row; where one log-probability is -inf so is the other."""


class ForwardKL(Divergence):
    """KL(source ‖ pivot) over the mapped entries and what is left of the vocabulary; see `divergence`."""

    kind: Literal["forward_kl"] = "forward_kl"
    tail: Literal["bucket", "residual_to_gold", "none"] = "bucket"
    """Where the source's mass outside the mapped entries goes: `bucket`, one more outcome `other` on both sides;
    `residual_to_gold`, onto the token that really follows; `none`, nowhere, which is not a KL and may be negative."""

    @property
    @override
    def requirements(self) -> Requirements:
        # save for a constant it is linear in the source's probabilities, if all its entries are read
        selected = self.select is not None and self.select.exact_entries
        exact = self.tail == "residual_to_gold" or self.top_k is not None or selected
        return dataclasses.replace(super().requirements, exact_entries=exact)

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, in nats. Raises ValueError when the tail needs the following token and has none.

        Entries drawn at random are the whole of a target: it has no `other`, whatever the tail. Its gradient, on average, is
        the one of the whole row, and its value KL(sample ‖ pivot).
        """
        both = compare(pivot, source, self.top_k)
        if self.tail == "bucket":
            both = (
                both.with_other()
                if source.sample_counts is None
                else both.with_other(~(source.sample_counts > 0).any(-1))
            )
            return self.between(both.source, both.pivot)
        if self.tail == "none":
            return self.between(both.source, both.pivot)
        if pivot.token is None:
            raise ValueError(
                "forward_kl with tail: residual_to_gold needs the token that follows each pivot row, and `pivot.token` "
                "is None. Give the pivot's rows their tokens, or use tail: bucket."
            )
        log_p, log_q = with_residual(both.source, both.is_gold), torch.cat([both.pivot, pivot.gold[:, None]], dim=-1)
        return self.between(log_p, log_q)

    def between(self, log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
        """KL(p ‖ q), in nats."""
        return divergence(log_p, log_q)


class ReverseKL(Divergence):
    """KL(pivot ‖ source): the pivot is held to a mode of the source, and pays for mass where the source has none.

    Source: Gu et al. 2024, arXiv:2306.08543 (MiniLLM), at single tokens of the given text (not of the pivot's own).
    """

    kind: Literal["reverse_kl"] = "reverse_kl"

    def between(self, log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
        """KL(q ‖ p), in nats."""
        return divergence(log_q, log_p)


class JensenShannon(Divergence):
    """Jensen-Shannon divergence, generalised by the share of the source in the mixture; at most log 2.

    Source: Agarwal et al. 2024, arXiv:2306.13649 (GKD).
    """

    kind: Literal["jensen_shannon"] = "jensen_shannon"
    source_share: float = Field(default=0.5, gt=0, lt=1)
    """The source's part of the mixture that both are compared with."""

    def between(self, log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
        """b KL(p ‖ m) + (1-b) KL(q ‖ m) with m = b p + (1-b) q, in nats."""
        b, mixture = self.source_share, mix(log_p, log_q, self.source_share)
        return b * divergence(log_p, mixture) + (1 - b) * divergence(log_q, mixture)


class SkewedKL(Divergence):
    """KL to a mixture of both, so that no ratio of probabilities exceeds 1 / skew.

    Source: Ko et al. 2024, arXiv:2402.03898 (DistiLLM).
    """

    kind: Literal["skewed_kl"] = "skewed_kl"
    skew: float = Field(default=0.1, ge=0, lt=1)
    """Share, in the mixture, of the distribution that is compared with it; 0 is the plain KL."""
    direction: Literal["forward", "reverse"] = "forward"
    """forward: KL(source ‖ mixture); reverse: KL(pivot ‖ mixture)."""

    def between(self, log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
        """KL(p ‖ a p + (1-a) q), or with p and q swapped, in nats."""
        one, other = (log_p, log_q) if self.direction == "forward" else (log_q, log_p)
        return divergence(one, mix(one, other, self.skew) if self.skew else other)


class L1(Divergence):
    """L1 distance of probabilities, twice the total variation: from 0 to 2.

    Source: the logit term of Li et al. 2023, arXiv:2308.10308 (detection in 3D). Its boxes and regions have no counterpart
    in text; for its selection see `select`.
    """

    kind: Literal["l1"] = "l1"

    def between(self, log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
        """Sum of |p - q|."""
        return (log_p.exp() - log_q.exp()).abs().sum(-1)


def mix(log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"], share: float) -> Float[Tensor, "M K"]:
    """log(share p + (1 - share) q), for 0 < share < 1; -inf where both are."""
    empty = log_p.isneginf() & log_q.isneginf()
    log_p, log_q = log_p.masked_fill(empty, 0), log_q.masked_fill(empty, 0)  # -inf - -inf is NaN, in the gradient
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share)).masked_fill(empty, -torch.inf)


def with_residual(logprobs: Float[Tensor, "M K"], is_gold: Bool[Tensor, "M K"]) -> Float[Tensor, "M K+1"]:
    """The mass left over goes to the following token: to its entry, or to one more at the end where it has none."""
    rest = log_left_over(logprobs)[:, None]
    merged = torch.where(is_gold, torch.logaddexp(logprobs, rest), logprobs)
    return torch.cat([merged, rest.masked_fill(is_gold.any(-1, keepdim=True), -torch.inf)], dim=-1)
