"""What every weighting promises, and the two that look at nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.rows import LogitRows, Pairs
from fusion.settings import Settings


class Weighting(Settings, ABC):
    """Gives each pair of each source a weight, in float32."""

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the sources' rows that must be known: of gold, mean and std."""
        return frozenset()

    @property
    def reads_pivot(self) -> bool:
        """Whether the pivot's rows must hold what it said before training; else they hold no numbers."""
        return False

    @property
    def accepts_sampled(self) -> bool:
        """Whether a source's entries may be drawn at random."""
        return True

    @property
    def entries(self) -> int | None:
        """How many entries each row must keep: 0 for none, None for the whole vocabulary."""
        return 0

    @abstractmethod
    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """For each source, one weight for each of its pairs. A pivot row has at most one pair with each source."""


class Sum(Weighting):
    """Every source counts fully everywhere, so three sources count three times as much as one (InfiFusion)."""

    kind: Literal["sum"] = "sum"

    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """All 1."""
        return [torch.ones(len(pair), device=pair.pivot.device) for pair in pairs]


class Mean(Weighting):
    """Every source counts the same everywhere, and together as much as one."""

    kind: Literal["mean"] = "mean"

    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """All 1 / S."""
        return [torch.full((len(pair),), 1 / len(pairs), device=pair.pivot.device) for pair in pairs]
