"""Directions of logits: of the likeliest tokens and of the rest apart, and of whole positions against each other."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import MappedObjective
from fusion.objectives.token.outcomes import Outcomes, compare

LEAST = 3  # a direction in fewer dimensions says next to nothing
FLAT = 1e-4  # logits that differ by less have no direction


class TopKDecoupled(MappedObjective):
    """1 - cosine between the models' logits, for the source's `top_k` entries and for its others; see `misdirection`.

    Logits are centred over the entries, for a cosine sees their level, which means nothing. Groups of fewer than 3 entries
    are left out. A positive factor on the pivot's logits of a group changes nothing.

    Source: the decoupled loss of TopKD, arXiv:2508.04539 (image classes), plus the constant that makes its least value 0. The
    paper's text leaves its weights open; ours are guesses. Scaling the source's logits first is the transform `topk_scale`.
    """

    kind: Literal["topkd_decoupled"] = "topkd_decoupled"
    top_k: int = Field(default=5, ge=LEAST)
    """Entries of the first group, the source's most likely ones."""
    positive: float = Field(default=1.0, ge=0)
    """Weight of the first group. A guess."""
    negative: float = Field(default=0.0, ge=0)
    """Weight of a group of the source's `top_k` least likely tokens. Above 0 it needs whole rows: the last entries that a
    cache keeps are not the least likely ones. The paper has such a group."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return None if self.negative else 0

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, logit_scale=False)

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, between 0 and twice the sum of the weights."""
        both = compare(pivot, source)
        both = both.gather(both.source.argsort(dim=-1, descending=True, stable=True))
        rank = torch.arange(both.source.shape[1], device=both.source.device)
        last = (~both.empty).sum(-1, keepdim=True) - (self.top_k if self.negative else 0)
        first = (rank < self.top_k).expand_as(both.empty)
        groups = [(self.positive, first), (1.0, ~first & (rank < last)), (self.negative, ~first & (rank >= last))]
        pivot_logits, source_logits = (centred(values, both.empty) for values in (both.pivot, both.source))
        return torch.stack(
            [w * misdirection(pivot_logits, source_logits, inside & ~both.empty) for w, inside in groups]
        ).sum(0)


class TopKContrastive(MappedObjective):
    """Cross-entropy of telling, for each position of one model, which position of the other is the same; both ways.

    A position is the direction of its logits, centred over its entries and 0 elsewhere. Depends on the other rows of the
    micro-batch, and does not end at 0 where the models agree: positions may resemble each other.

    Source: the contrastive term of TopKD, arXiv:2508.04539 (images of a batch; positions here). Normalisation and
    temperature are guesses: the paper's text leaves them open.
    """

    kind: Literal["topkd_contrastive"] = "topkd_contrastive"
    temperature: float = Field(default=0.1, gt=0)
    """Divides the cosines. A guess."""
    rows: int = Field(default=1024, ge=2)
    """At most so many positions are compared, spread evenly; the others count as these do on average. A guess."""

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, logit_scale=False, whole_batch=True)

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, in nats, never negative."""
        both, count = compare(pivot, source), min(len(source), self.rows)
        at = torch.linspace(0, max(len(source) - 1, 0), count, device=source.ids.device).long()
        some = Outcomes(both.source[at], both.pivot[at], both.is_gold[at])
        pivot_logits, source_logits = directions(some, source.ids[at])
        values = telling_apart(pivot_logits, source_logits, self.temperature)
        return both.pivot.new_zeros(len(source)).index_copy(0, at, values * (len(source) / max(1, count)))


def misdirection(a: Float[Tensor, "M K"], b: Float[Tensor, "M K"], inside: Bool[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """1 - cosine of the entries inside, from 0 to 2; 0 where there are fewer than 3, or either side has no direction."""
    a, b = a.masked_fill(~inside, 0), b.masked_fill(~inside, 0)
    lengths = [torch.linalg.vector_norm(side, dim=-1) for side in (a, b)]
    known = (inside.sum(-1) >= LEAST) & (lengths[0] > FLAT) & (lengths[1] > FLAT)
    one, other = (length.masked_fill(~known, 1) for length in lengths)
    # from the difference of the unit vectors: 1 - cos would lose half the digits where they agree
    apart = (a / one[:, None] - b / other[:, None]).square().sum(-1) / 2
    return apart.masked_fill(~known, 0)


def centred(values: Float[Tensor, "M K"], empty: Bool[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """Less the mean over the entries that are not empty; 0 at the others."""
    values = values.masked_fill(empty, 0)
    return (values - values.sum(-1, keepdim=True) / (~empty).sum(-1, keepdim=True).clamp(min=1)).masked_fill(empty, 0)


def directions(both: Outcomes, ids: Int[Tensor, "M K"]) -> list[Float[Tensor, "M U"]]:
    """Unit vectors of both models over all tokens that occur, 0 where a row has no entry; 0 in all for a flat row."""
    _, column = ids.masked_fill(both.empty, -1).unique(return_inverse=True)
    width, found = int(column.max()) + 1 if column.numel() else 0, []
    for values in (both.pivot, both.source):
        flat = centred(values, both.empty)
        length = torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
        unit = torch.where(length > FLAT, flat / length.masked_fill(length <= FLAT, 1), 0)
        found.append(unit.new_zeros(len(unit), width).scatter_add(1, column, unit))
    return found


def telling_apart(a: Float[Tensor, "M U"], b: Float[Tensor, "M U"], temperature: float) -> Float[Tensor, " M"]:
    """Mean of the cross-entropies of finding row m of `b` from row m of `a` and the other way round, by their products."""
    alike = a @ b.T / temperature
    return -(alike.log_softmax(1).diagonal() + alike.log_softmax(0).diagonal()) / 2
