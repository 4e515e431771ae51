"""Forward KL on tokens that both vocabularies have: the term that says which token the source means."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from fusion.objectives.base import MappedObjective, as_target
from fusion.rows import LogitRows


class ForwardKL(MappedObjective):
    """KL(source ‖ pivot) over the mapped entries and what is left of the vocabulary; see `divergence`."""

    kind: Literal["forward_kl"] = "forward_kl"
    tail: Literal["bucket", "residual_to_gold", "none"] = "bucket"
    """Where the source's mass outside the mapped entries goes: `bucket`, one more outcome `other` on both sides;
    `residual_to_gold`, onto the token that really follows; `none`, nowhere, which is not a KL and may be negative."""
    top_k: int | None = Field(default=None, ge=1)
    """Use at most this many of the source's entries, the most likely ones; None uses all that are mapped."""

    @property
    def entries(self) -> int | None:
        """None of the pivot's own largest: it is asked for the source's ids instead."""
        return 0

    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """One value for each pair, in nats. Raises ValueError when the tail needs the following token and has none."""
        log_p, log_q, is_gold = self._used(pivot, as_target(source, pivot))
        if self.tail == "bucket":
            log_p, log_q = with_other(log_p), with_other(log_q)
        if self.tail == "residual_to_gold":
            log_p, log_q = with_residual(log_p, is_gold), torch.cat([log_q, pivot.gold[:, None]], dim=-1)
        return divergence(log_p, log_q)

    def _used(
        self, pivot: LogitRows, source: LogitRows
    ) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M K"], Bool[Tensor, "M K"]]:
        """Log-probabilities of source and pivot, -inf at entries without meaning, and which is the following token."""
        empty = (source.ids < 0) | source.logprobs.isneginf()
        log_p = source.logprobs.masked_fill(empty, -torch.inf)
        log_q = pivot.logprobs.masked_fill(empty, -torch.inf)
        is_gold = self._is_gold(pivot) & ~empty
        if self.top_k is None or self.top_k >= source.k:
            return log_p, log_q, is_gold
        log_p, best = log_p.topk(self.top_k, dim=-1)
        return log_p, log_q.gather(1, best), is_gold.gather(1, best)

    def _is_gold(self, pivot: LogitRows) -> Bool[Tensor, "M K"]:
        if self.tail != "residual_to_gold":
            return torch.zeros_like(pivot.ids, dtype=torch.bool)
        if pivot.token is None:
            raise ValueError(
                "forward_kl with tail: residual_to_gold needs the token that follows each pivot row, and `pivot.token` "
                "is None. Give the pivot's rows their tokens, or use tail: bucket."
            )
        return pivot.ids == pivot.token[:, None]


def divergence(log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """Sum of p (log p - log q) over the outcomes with p > 0, in nats.

    Where p and q are both distributions this is KL(p ‖ q): never negative, and 0 where they agree. An outcome with
    p = 0 counts nothing and gives no gradient, whatever q is.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2, at temperature 1.
    """
    impossible = log_p.isneginf()  # 0 * inf is NaN, in the value and in the gradient
    return (log_p.exp() * (log_p.masked_fill(impossible, 0) - log_q.masked_fill(impossible, 0))).sum(-1)


def with_other(logprobs: Float[Tensor, "M K"]) -> Float[Tensor, "M K+1"]:
    """One more outcome at the end, `other`: the log of the mass that the entries leave over."""
    return torch.cat([logprobs, log_left_over(logprobs)[:, None]], dim=-1)


def with_residual(logprobs: Float[Tensor, "M K"], is_gold: Bool[Tensor, "M K"]) -> Float[Tensor, "M K+1"]:
    """The mass left over goes to the following token: to its entry, or to one more at the end where it has none."""
    rest = log_left_over(logprobs)[:, None]
    merged = torch.where(is_gold, torch.logaddexp(logprobs, rest), logprobs)
    return torch.cat([merged, rest.masked_fill(is_gold.any(-1, keepdim=True), -torch.inf)], dim=-1)


def log_left_over(logprobs: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """log(1 - sum of exp(logprobs)), no lower than the dtype's rounding error, where the gradient ends."""
    # clamp: rounding can put the kept mass at 1 or a hair above, and the log of the rest would be -inf or NaN
    return log1mexp(logprobs.logsumexp(-1).clamp(max=-torch.finfo(logprobs.dtype).eps))


def log1mexp(x: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """log(1 - exp(x)) for x < 0, to full precision at both ends.

    Source: Mächler 2012, "Accurately computing log(1 - exp(-|a|))", equation 7.
    """
    near = x > -0.6931471805599453  # log 2
    # each branch sees only its own values: the other's gradient could be infinite, and 0 * inf is NaN
    small, large = torch.where(near, x, -0.5), torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
