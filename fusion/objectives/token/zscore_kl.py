"""Divergence of standardised logits: the shape of a distribution over named tokens, whatever its temperature."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import MappedObjective
from fusion.objectives.checks import EPS, as_target, standardise_by_row
from fusion.objectives.token.outcomes import compare, divergence, log_softmax


class ZScoreKL(MappedObjective):
    """KL(source ‖ pivot) between softmaxes of standardised logits over the mapped entries.

    A positive factor or a constant on either model's logits changes nothing, so it teaches no confidence; it is 0 where one
    row is such a transform of the other. The softmax runs over the entries alone: what is left over, at the temperature that
    standardising amounts to, is not in the rows. With whole rows it is the published term.

    Source: the logit term of LLAVADI, Xu et al. 2024, arXiv:2407.19409, for two models with one tokenizer (there the
    sample deviation, a factor of 1 + 1/2V); standardisation as in Sun et al. 2024, arXiv:2403.01427. The paper's selection
    of tokens by their affinity to an image has no counterpart in text.
    """

    kind: Literal["zscore_kl"] = "zscore_kl"
    over: Literal["vocabulary", "support"] = "vocabulary"
    """Whose mean and deviation: each model's own whole vocabulary, or the compared entries."""
    top_k: int | None = Field(default=None, ge=2)
    """Use at most this many of the source's entries, the most likely ones; None uses all that are mapped."""

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"mean", "std"} if self.over == "vocabulary" else ())

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, logit_scale=False)

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, in nats, never negative. Raises ValueError where moments are needed and NaN."""
        both = compare(pivot, source, self.top_k)
        sides = ((both.source, as_target(source, pivot), "source"), (both.pivot, pivot, "pivot"))
        return divergence(*(log_softmax(self._scores(*side, both.empty), both.empty) for side in sides))

    def _scores(
        self, values: Float[Tensor, "M K"], rows: LogitRows | MappedRows, side: str, empty: Bool[Tensor, "M K"]
    ) -> Float[Tensor, "M K"]:
        if self.over == "support":
            return over_entries(values, empty)
        return standardise_by_row(values.masked_fill(empty, 0), rows, side, self.kind)


def over_entries(values: Float[Tensor, "M K"], empty: Bool[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """(value - mean) / (std + eps) over the entries that are not empty; 0 at the others."""
    count = (~empty).sum(-1, keepdim=True).clamp(min=1).to(values)
    centred = values.masked_fill(empty, 0)
    centred = (centred - centred.sum(-1, keepdim=True) / count).masked_fill(empty, 0)
    # the norm's gradient is 0 at 0, where a square root's would be infinite: rows of equal values give no NaN
    return centred / (torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / count.sqrt() + EPS)
