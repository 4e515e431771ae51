"""What two models say of the same outcomes: the form in which mapped rows are compared.

Outcomes are the tokens that a source's mapped entries name, perhaps the token that really follows, and `other`: all the
rest of the vocabulary as one. So both sides are whole distributions although only some entries were kept, and a divergence
between them never exceeds the one between the whole rows. Log-probabilities are -inf at outcomes without meaning, on both
sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fusion.core.rows import LogitRows, MappedRows
from fusion.core.tail import with_other
from fusion.objectives.checks import as_target


@dataclass(frozen=True)
class Outcomes:
    """Log-probabilities of the same outcomes, in nats."""

    source: Float[Tensor, "M K"]
    """Log-probabilities that the source gives: constants, through which no gradient flows."""
    pivot: Float[Tensor, "M K"]
    """Log-probabilities that the pivot gives, with gradients."""
    is_gold: Bool[Tensor, "M K"]
    """Which outcome is the token that really follows; none where the rows do not say."""

    @property
    def empty(self) -> Bool[Tensor, "M K"]:
        """Whether each outcome has no meaning (an empty entry of the source)."""
        return self.source.isneginf()

    def with_other(self, where: Bool[Tensor, " M"] | None = None) -> Outcomes:
        """One more outcome at the end, `other`: what is left over; without meaning in the rows that are not in `where`."""
        no = self.is_gold.new_zeros(len(self.is_gold), 1)
        source, pivot = with_other(self.source), with_other(self.pivot)
        if where is not None:
            last = torch.cat([torch.zeros_like(self.is_gold), ~where[:, None]], dim=1)
            source, pivot = source.masked_fill(last, -torch.inf), pivot.masked_fill(last, -torch.inf)
        return Outcomes(source, pivot, torch.cat([self.is_gold, no], dim=1))

    def gather(self, columns: Tensor) -> Outcomes:
        """The outcomes at `columns` [M, k]."""
        return Outcomes(self.source.gather(1, columns), self.pivot.gather(1, columns), self.is_gold.gather(1, columns))


def compare(pivot: LogitRows, source: MappedRows, top_k: int | None = None) -> Outcomes:
    """The mapped entries, or the `top_k` that the source finds most likely."""
    source = as_target(source, pivot)
    empty = (source.ids < 0) | source.logprobs.isneginf()
    both = Outcomes(
        source.logprobs.masked_fill(empty, -torch.inf),
        pivot.logprobs.masked_fill(empty, -torch.inf),
        _gold(pivot) & ~empty,
    )
    return both if top_k is None or top_k >= source.k else both.gather(both.source.topk(top_k, dim=-1).indices)


def gold_first(pivot: LogitRows, source: MappedRows, top_k: int | None = None) -> Outcomes:
    """The same with the following token as the first outcome, empty where the source's log-probability of it is unknown."""
    both, target = compare(pivot, source, top_k), as_target(source, pivot)
    unknown = target.pivot_token_logprob.isnan()[:, None]
    both_gold = (target.pivot_token_logprob, pivot.gold)
    gold = [logprob[:, None].masked_fill(unknown, -torch.inf) for logprob in both_gold]
    entries = [values.masked_fill(both.is_gold, -torch.inf) for values in (both.source, both.pivot)]
    is_gold = torch.cat([~unknown, torch.zeros_like(both.is_gold)], dim=1)
    return Outcomes(torch.cat([gold[0], entries[0]], dim=1), torch.cat([gold[1], entries[1]], dim=1), is_gold)


def divergence(log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """Sum of p (log p - log q) over the outcomes with p > 0, in nats.

    Where p and q are both distributions this is KL(p ‖ q): never negative, and 0 where they agree. An outcome with
    p = 0 counts nothing and gives no gradient, whatever q is.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2, at temperature 1.
    """
    impossible = log_p.isneginf()  # 0 * inf is NaN, in the value and in the gradient
    return (log_p.exp() * (log_p.masked_fill(impossible, 0) - log_q.masked_fill(impossible, 0))).sum(-1)


def cross_entropy(log_p: Float[Tensor, "M K"], log_q: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """Sum of -p log q over the outcomes with p > 0, in nats."""
    return -(log_p.exp() * log_q.masked_fill(log_p.isneginf(), 0)).sum(-1)


def log_softmax(values: Float[Tensor, "M K"], empty: Bool[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """Over the entries that are not empty, -inf at the others; -inf everywhere in a row of none."""
    least = torch.finfo(values.dtype).min
    return values.masked_fill(empty, least).log_softmax(-1).masked_fill(empty, -torch.inf)


def _gold(pivot: LogitRows) -> Bool[Tensor, "M K"]:
    if pivot.token is None:
        return torch.zeros_like(pivot.ids, dtype=torch.bool)
    return (pivot.ids == pivot.token[:, None]) & (pivot.ids >= 0)
