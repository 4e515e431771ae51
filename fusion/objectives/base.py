"""What every objective promises: one unreduced value for each unit it compares."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fusion.rows import LogitRows
from fusion.settings import Settings

Unit = Literal["row", "pair", "mapped", "example"]


class Objective(Settings, ABC):
    """A term of the loss.

    It is called with rows and returns one value for each unit, in the pivot's dtype, with gradients for the pivot only.
    Averaging (over the global batch), weighting and masking happen in `train/`, so that neither the number of
    micro-batches nor the number of processes changes the loss. `unit` says what a value belongs to, and so what the
    call takes; there is one base class for each.
    """

    unit: ClassVar[Unit]
    weight: float = Field(default=1.0, ge=0)
    """Share of this term in the total."""

    @property
    @abstractmethod
    def entries(self) -> int | None:
        """How many of its largest entries each row must keep: 0 for none, None for the whole vocabulary."""

    @property
    def needs(self) -> frozenset[str]:
        """Fields of a source's rows, besides entries, that must be known: of gold, mean and std."""
        return frozenset()


class RowObjective(Objective):
    """Looks at each of the pivot's rows alone."""

    unit: ClassVar[Unit] = "row"

    @abstractmethod
    def __call__(self, pivot: LogitRows) -> Float[Tensor, " N"]:
        """One value for each row."""


class PairObjective(Objective):
    """Compares joined rows: row m of one belongs to row m of the other. Each has its own entries, largest first."""

    unit: ClassVar[Unit] = "pair"

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """One value for each pair."""


class MappedObjective(Objective):
    """Compares joined rows entry by entry: both are about the same ids, in the pivot's vocabulary.

    An id of -1, or a source's log-probability of -inf, is an empty entry, whatever the pivot has there.
    """

    unit: ClassVar[Unit] = "mapped"

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """One value for each pair."""


class ExampleObjective(Objective):
    """Compares all rows of an example at once, without joining them. `example` counts from 0 to E-1 on both sides."""

    unit: ClassVar[Unit] = "example"

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        """One value for each example; 0 where a side has no rows of it."""


def as_target(source: LogitRows, pivot: LogitRows) -> LogitRows:
    """The source's rows as constants, their log-probabilities and moments in the pivot's dtype."""
    source, dtype = source.detach(), pivot.logprobs.dtype
    return dataclasses.replace(
        source, logprobs=source.logprobs.to(dtype), mean=source.mean.to(dtype), std=source.std.to(dtype)
    )


def full_top(rows: LogitRows, k: int, side: str) -> LogitRows:
    """The `k` largest entries of each row. Raises ValueError where a row keeps fewer or has empty ones among them."""
    top = rows.top(k)
    if empty := int((top.ids < 0).any(-1).sum()):
        raise ValueError(
            f"{empty} of {len(rows)} {side} rows have empty entries among their first {k}. Comparing by rank needs {k} "
            f"numbers in every row: lower top_k, or extract the {side} again with a backend that gives {k} of them."
        )
    return top
