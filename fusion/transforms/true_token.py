"""Transforms that know which token really follows: what a source says of it, exchanged, raised, or all that is kept."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import MappedRows
from fusion.core.tail import log_left_over
from fusion.transforms.base import MappedTransform


class LogitSwap(MappedTransform):
    """Where the source's first choice is not the true token, the two exchange their probabilities.

    So the source is never wrong, and as sure as it was: sorted values, entropy and mass are the same. Rows where the source is
    right, or its probability of the true token unknown, stay. On the untrained pivot as a source, a defence against forgetting;
    on others, a repair.

    Source: logit-swap self-distillation of Mix-CPT, Jiang et al. 2025, arXiv:2407.10804, on the frozen original model.
    """

    kind: Literal["logit_swap"] = "logit_swap"

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    def __call__(self, rows: MappedRows) -> MappedRows:
        """The changed rows, with one more entry for a true token that was not among them."""
        rows, is_gold = with_gold_entry(rows)
        best, first = rows.logprobs.max(-1)
        known = is_gold.any(-1)  # where the true token comes first, the exchange is one with itself
        is_first = torch.arange(rows.k, device=first.device) == first[:, None]
        swapped = torch.where(
            is_gold, best[:, None], torch.where(is_first, rows.pivot_token_logprob[:, None], rows.logprobs)
        )
        return dataclasses.replace(
            rows,
            logprobs=torch.where(known[:, None], swapped, rows.logprobs),
            pivot_token_logprob=torch.where(known, best, rows.pivot_token_logprob),
        )


class TopKScale(MappedTransform):
    """Raises the source's likeliest tokens above the rest, and the true token most where the source is wrong; see `scaled`.

    Source: the scaling module of TopKD, arXiv:2508.04539 (image classes), whose text leaves the weights open: all numbers
    are guesses. Logits are centred over the kept entries first, for their level means nothing.
    """

    kind: Literal["topk_scale"] = "topk_scale"
    top_k: int = Field(default=5, ge=2)
    """How many of the likeliest tokens are raised."""
    largest: float = Field(default=2.0, ge=1)
    """Factor of the likeliest token, falling to 1 at the last of them; also of the true token where the source is wrong."""
    shift: float = Field(default=0.1, ge=0)
    """Share of the distance between the means of the raised and of the other entries that is added."""

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    def __call__(self, rows: MappedRows) -> MappedRows:
        """The changed rows, with one more entry for a true token that was not among them."""
        rows, is_gold = with_gold_entry(rows)
        there = ~rows.logprobs.isneginf()
        level = rows.logprobs.masked_fill(~there, 0).sum(-1, keepdim=True) / there.sum(-1, keepdim=True).clamp(min=1)
        other = log_left_over(rows.logprobs)[:, None] - level
        z = scaled(rows.logprobs - level, is_gold, self.top_k, self.largest, self.shift)
        logprobs = z - torch.cat([z, other], dim=1).logsumexp(-1, keepdim=True)
        gold = torch.where(is_gold, logprobs, 0).sum(-1)
        return dataclasses.replace(
            rows, logprobs=logprobs, pivot_token_logprob=torch.where(is_gold.any(-1), gold, torch.nan)
        )


class GoldOnly(MappedTransform):
    """Keeps the source's probability of the true token, and of the rest only their sum.

    How much of a source's worth is how sure it is of the text? What this transform leaves is that, and nothing of its other
    tokens. (How much is in the likeliest few is seen with a term's `top_k`.)

    Source: the partial teacher KD-pt of Tang et al. 2020, arXiv:2002.03532, the rest, there spread evenly, is one
    outcome here. Its details we know at second hand only.
    """

    kind: Literal["gold_only"] = "gold_only"

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    def __call__(self, rows: MappedRows) -> MappedRows:
        """Rows of one entry, empty where that probability is unknown."""
        assert rows.token is not None
        known = ~rows.pivot_token_logprob.isnan()
        ids, logprobs = torch.where(known, rows.token, -1), torch.where(known, rows.pivot_token_logprob, -torch.inf)
        return dataclasses.replace(rows, ids=ids[:, None], logprobs=logprobs[:, None], sample_counts=None)


def with_gold_entry(rows: MappedRows) -> tuple[MappedRows, Bool[Tensor, "N K"]]:
    """The rows with the true token among their entries, where its probability is known; and which entry it is."""
    assert rows.token is not None
    missing = ~(rows.ids == rows.token[:, None]).any(-1) & ~rows.pivot_token_logprob.isnan()
    ids = torch.cat([rows.ids, torch.where(missing, rows.token, -1)[:, None]], dim=1)
    more = torch.where(missing, rows.pivot_token_logprob, -torch.inf)[:, None].to(rows.logprobs)
    rows = dataclasses.replace(rows, ids=ids, logprobs=torch.cat([rows.logprobs, more], dim=1), sample_counts=None)
    return rows, (ids == rows.token[:, None]) & (ids >= 0)  # type: ignore[index]


def scaled(
    z: Float[Tensor, "N K"], is_gold: Bool[Tensor, "N K"], top_k: int, largest: float, shift: float
) -> Float[Tensor, "N K"]:
    """z w + shift (mean of the raised - mean of the others), for the `top_k` largest and the true token; z for the others.

    w falls by rank from `largest` to 1; it is `largest` for the true token where that does not come first.
    """
    rank = z.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    raised = ((rank < top_k) | is_gold) & ~z.isneginf()
    others = ~raised & ~z.isneginf()
    w = largest - (largest - 1) * rank.clamp(max=top_k - 1).to(z) / (top_k - 1)
    w = torch.where(is_gold & (rank > 0), largest, w)
    means = [z.masked_fill(~part, 0).sum(-1) / part.sum(-1).clamp(min=1) for part in (raised, others)]
    added = torch.where(others.any(-1), shift * (means[0] - means[1]), 0)
    return torch.where(raised, z * w + added[:, None], z)
