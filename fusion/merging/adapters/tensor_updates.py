"""What an adapter does to one tensor of its base, a few rows at a time, in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

Rows = Float[Tensor, "n columns"]
ROWS_AT_ONCE = 1024
"""Rows of a matrix that are in memory at once while its columns are measured."""


class TensorUpdate(ABC):
    """A change of one tensor. Tensors of one dimension are a column: each entry is a row."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that it fits, as the base stores it."""

    @abstractmethod
    def apply(self, rows: Rows, first: int) -> Rows:
        """Return the base's rows from row `first` on, changed."""


@dataclass(frozen=True)
class LowRankUpdate(TensorUpdate):
    """W + scale · B A. The factors stay as they are stored, for those of a large model would fill the memory in float64."""

    lora_b: Float[Tensor, "rows rank"]
    lora_a: Float[Tensor, "rank columns"]
    scale: float
    transposed: bool
    """Whether the base stores the transpose, as embeddings and GPT-2's Conv1D do."""

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.lora_b.shape[0], self.lora_a.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)

    @override
    def apply(self, rows: Rows, first: int) -> Rows:
        last = first + len(rows)
        if self.transposed:
            return rows + self.scale * (self.lora_b.double() @ self.lora_a[:, first:last].double()).T
        return rows + self.scale * (self.lora_b[first:last].double() @ self.lora_a.double())

    def equals(self, other: TensorUpdate) -> bool:
        """Whether both add the same, as an embedding and a head that are tied do, which store each other's transpose."""
        if not isinstance(other, LowRankUpdate) or self.shape != other.shape or self.scale != other.scale:
            return False
        swapped = self.transposed != other.transposed
        b, a = (other.lora_a.T, other.lora_b.T) if swapped else (other.lora_b, other.lora_a)
        return torch.equal(self.lora_b, b) and torch.equal(self.lora_a, a)


@dataclass(frozen=True)
class WeightDecomposedUpdate(TensorUpdate):
    """m · (W + scale · B A) / ‖W + scale · B A‖, with the norm of each output's weights.

    Source: DoRA, Liu et al. 2024, arXiv:2402.09353, equation 5.
    """

    low_rank: LowRankUpdate
    magnitude: Float[Tensor, " outputs"]
    read_rows: Callable[[int, int], Rows]
    """Reads rows of W, for the norms of columns where the base stores the transpose."""

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.low_rank.shape

    @override
    def apply(self, rows: Rows, first: int) -> Rows:
        changed = self.low_rank.apply(rows, first)
        if self.low_rank.transposed:
            return changed * (self.magnitude / self._column_norms)
        return changed * (self.magnitude[first : first + len(rows)] / changed.norm(dim=1))[:, None]

    @cached_property
    def _column_norms(self) -> Float[Tensor, " outputs"]:
        squares = torch.zeros(len(self.magnitude), dtype=torch.float64)
        for first in range(0, self.shape[0], ROWS_AT_ONCE):
            rows = self.read_rows(first, min(first + ROWS_AT_ONCE, self.shape[0]))
            squares += self.low_rank.apply(rows, first).square().sum(dim=0)
        return squares.sqrt()


@dataclass(frozen=True)
class BiasUpdate(TensorUpdate):
    """b + scale · the bias of B (`lora_bias`)."""

    bias: Float[Tensor, " outputs"]
    scale: float

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return tuple(self.bias.shape)

    @override
    def apply(self, rows: Rows, first: int) -> Rows:
        return rows + self.scale * self.bias[first : first + len(rows), None].double()


@dataclass(frozen=True)
class TokenUpdate(TensorUpdate):
    """Rows of an embedding or a head replaced (`trainable_token_indices`)."""

    indices: list[int]
    values: Float[Tensor, "tokens columns"]
    num_rows: int
    """Rows of the whole tensor."""

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return (self.num_rows, self.values.shape[1])

    @override
    def apply(self, rows: Rows, first: int) -> Rows:
        changed = rows.clone()
        for index, value in zip(self.indices, self.values, strict=True):
            if first <= index < first + len(rows):
                changed[index - first] = value.double()
        return changed
