"""Spans of text from one token boundary that two models share to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class AlignedSpans:
    """Spans that begin and end at the same bytes for a pivot and a source, each with at least one row of both.

    `fusion.alignment.align_spans` makes them.
    """

    pair: Int[Tensor, " C"]
    """Number of the pair of rows that begins each span."""
    pivot_span: Int[Tensor, " N"]
    """Number of the span that each row of the pivot lies in, -1 for none."""
    source_span: Int[Tensor, " R"]
    """Number of the span that each row of the source lies in, -1 for none."""

    def __len__(self) -> int:
        return self.pair.shape[0]

    def to(self, device: Any) -> AlignedSpans:
        """Return the same spans on another device."""
        return AlignedSpans(self.pair.to(device), self.pivot_span.to(device), self.source_span.to(device))

    def sum_rows(self, values: Float[Tensor, " N"], span: Int[Tensor, " N"]) -> Float[Tensor, " C"]:
        """Sum `values` over the rows of each span; `span` is `pivot_span` or `source_span`."""
        inside = span >= 0
        return values.new_zeros(len(self)).index_add(0, span[inside], values[inside])
