"""Logits compared by how far they lie from what their token usually gets: each column standardised over the batch."""

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
from fusion.objectives.token.outcomes import compare, divergence, log_softmax


class LumiNet(MappedObjective):
    """KL(source ‖ pivot) between softmaxes of logits whose columns are standardised over the micro-batch; see `perceive`.

    A column is a token; its observations are the rows whose mapped entries name it, on both sides. A positive factor and a
    constant on a column, on either side, change nothing. Its values depend on the other rows of the micro-batch, so the size of
    that is part of the method, and numbers of processes or accumulation steps matter.

    Source: Hossain et al. 2023, arXiv:2310.03669 (image classes; a batch of images there, of positions here), whose settings
    for ImageNet are the defaults. Columns that are only partly observed are ours: a cache keeps no whole rows.
    """

    kind: Literal["luminet"] = "luminet"
    temperature: float = Field(default=0.7, gt=0)
    """Divides the standardised logits of both."""
    alpha: float = Field(default=2.0, gt=0)
    """Its square multiplies the divergence."""
    rows: int = Field(default=8, ge=2)
    """Columns with fewer observations take no part, for their spread is not known. A guess."""
    columns: int = Field(default=2048, ge=2)
    """At most so many columns, the most frequent. A guess."""
    eps: float = Field(default=1e-5, ge=0)
    """Added to the variance of a column."""

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, whole_batch=True)

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, never negative; 0 where none of its entries is in a column that takes part."""
        both = compare(pivot, source)
        column, observed = self._columns(source.ids, both.empty)
        scores = [
            perceive(values.masked_fill(~observed, 0), column, observed, self.eps)
            for values in (both.source, both.pivot)
        ]
        return self.alpha**2 * divergence(*(log_softmax(score / self.temperature, ~observed) for score in scores))

    def _columns(
        self, ids: Int[Tensor, "M K"], empty: Bool[Tensor, "M K"]
    ) -> tuple[Int[Tensor, "M K"], Bool[Tensor, "M K"]]:
        """A number for each entry's column, and which entries take part."""
        _, column, count = ids.masked_fill(empty, -1).unique(return_inverse=True, return_counts=True)
        count = count.index_put((column[empty],), count.new_zeros(()))  # empty entries are no column
        enough = count >= self.rows
        if len(count) > self.columns:
            enough = enough & (count >= count.topk(self.columns).values[-1])
        return column, enough[column] & ~empty


def perceive(
    values: Float[Tensor, "M K"], column: Int[Tensor, "M K"], observed: Bool[Tensor, "M K"], eps: float = 1e-5
) -> Float[Tensor, "M K"]:
    """(value - mean) / sqrt(variance + eps), over the observed entries of the same column; 0 at the others.

    Biased variance. A column of one observation, or of equal ones, gives 0.
    """
    number = int(column.max()) + 1 if column.numel() else 0

    def mean(of: Float[Tensor, "M K"]) -> Float[Tensor, "M K"]:
        count = torch.bincount(column[observed], minlength=number).clamp(min=1)
        return (of.new_zeros(number).index_add(0, column[observed], of[observed]) / count)[column]

    centred = (values - mean(values)).masked_fill(~observed, 0)
    spread = (mean(centred.square()) + eps).masked_fill(~observed, 1)
    flat = spread == 0  # without eps: no direction to go, and a root's gradient is infinite there
    return torch.where(flat, 0, centred / spread.masked_fill(flat, 1).sqrt())
