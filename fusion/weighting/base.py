"""What every weighting promises, and the two that look at nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.core.rows import LogitRows, Pairs
from fusion.core.settings import Settings


class Label(NamedTuple):
    """What is known of an example besides its rows."""

    domain: str
    id: str = ""


class Weighting(Settings):
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

    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """For each source, one weight for each of its pairs: all 1, if a type does not say otherwise.

        A pivot row has at most one pair with each source.
        """
        return [torch.ones(len(pair), device=pair.pivot.device) for pair in pairs]

    def by_example(self, examples: Sequence[Label], sources: int, step: int | None) -> Float[Tensor, "S E"] | None:
        """A factor on the weights of all pairs of a source in an example, at a step of training; None for 1 everywhere.

        Without a step it is the mean over all steps.
        """
        return None

    @property
    def unfound(self) -> Literal["domain", "all"] | None:
        """Whether shares are still to be found on validation examples: of each domain, or of all together."""
        return None

    def with_shares(self, found: Mapping[str, Sequence[float]]) -> Any:
        """The same, with these shares where some were to be found."""
        return self


def times(
    weights: Sequence[Float[Tensor, " _"]],
    factor: Float[Tensor, "S E"] | None,
    pivot: LogitRows,
    pairs: Sequence[Pairs],
) -> list[Float[Tensor, " _"]]:
    """Weights of pairs, with the factor of the example that each pair is in."""
    if factor is None:
        return list(weights)
    return [w * f.to(w)[pivot.example[pair.pivot]] for w, f, pair in zip(weights, factor, pairs, strict=True)]


class Sum(Weighting):
    """Every source counts fully everywhere, so three sources count three times as much as one (InfiFusion)."""

    kind: Literal["sum"] = "sum"


class Mean(Weighting):
    """Every source counts the same everywhere, and together as much as one."""

    kind: Literal["mean"] = "mean"

    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """All 1 / S."""
        return [torch.full((len(pair),), 1 / len(pairs), device=pair.pivot.device) for pair in pairs]
