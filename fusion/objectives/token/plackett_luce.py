"""List-wise distillation: the pivot is asked for the source's order of tokens, the true token first."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import AnyRows, LogitRows, MappedRows
from fusion.objectives.base_classes import MappedObjective
from fusion.objectives.token.outcomes import gold_first


class PlackettLuce(MappedObjective):
    """Weighted likelihood of the source's order under the pivot; see `plackett_luce`.

    The list is the true token, then the source's other entries by falling probability (equal ones by id), then `other`. It
    contains the cross-entropy on the true token, so it needs no such term beside it. Not least where pivot and source
    agree, for the true token always comes first. Where the source's log-probability of that is unknown, the list begins
    with the source's own first.

    Source: PLD, Bassam et al. 2025, arXiv:2506.12542, at temperature 1. The list's end, `other`, is ours: the terms
    of the paper that it replaces weigh no more than the source's mass outside the entries.
    """

    kind: Literal["plackett_luce"] = "plackett_luce"
    top_k: int | None = Field(default=None, ge=1)
    """Use at most this many of the source's entries, the most likely ones; None uses all that are mapped."""

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, in nats, never negative."""
        both = gold_first(*by_likelihood(pivot, source, self.top_k)).with_other()
        return plackett_luce(both.source.exp(), both.pivot)


def plackett_luce(worth: Float[Tensor, "M L"], logits: Float[Tensor, "M L"]) -> Float[Tensor, " M"]:
    """Sum over k of worth_k times -log of the probability to choose item k among the items k, k+1, ..., L, in nats.

    With worth (1, 0, ...) it is the cross-entropy on the first item, with worth 1 everywhere minus the log of the
    Plackett-Luce probability of the whole order. Items without worth take part in the choices of those before them.
    """
    rest = logits.flip(-1).logcumsumexp(-1).flip(-1)
    return (worth * (rest - logits).masked_fill(worth == 0, 0)).sum(-1)


def by_likelihood(pivot: LogitRows, source: MappedRows, top_k: int | None) -> tuple[LogitRows, MappedRows]:
    """Sort the entries of both by the source's falling probability, equal ones by id, and keep no more than `top_k` of them."""
    by_id = source.ids.argsort(dim=-1, stable=True)
    falling = source.logprobs.gather(1, by_id).argsort(dim=-1, descending=True, stable=True)
    order = by_id.gather(1, falling)[:, :top_k]
    return _reordered(pivot, order), _reordered(source, order)


def _reordered(rows: AnyRows, order: Int[Tensor, "M L"]) -> AnyRows:
    return dataclasses.replace(
        rows, logprobs=rows.logprobs.gather(1, order), ids=rows.ids.gather(1, order), sample_counts=None
    )
