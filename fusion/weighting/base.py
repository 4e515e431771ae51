"""What every weighting promises, and the two that look at nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, Pairs, Positions
from fusion.core.settings import Settings


class Weighting(Settings):
    """Gives each pair of each source a weight, in float32: a constant, through which no gradient flows."""

    if TYPE_CHECKING:
        kind: Any
    takes_priors: ClassVar[bool] = False
    """Whether its weights share out 1 among the sources, so that priors of sources belong into them; see `with_priors`."""

    @property
    def selects_one_source(self) -> bool:
        """Whether all weight goes to one source, at each position or in each example."""
        return False

    @property
    def required_source_fields(self) -> frozenset[str]:
        """Fields of the sources' rows that must be known: of gold, mean and std."""
        return frozenset()

    @property
    def required_pivot_fields(self) -> frozenset[str]:
        """Fields that the pivot's rows must hold as it was before training; without any they hold no numbers."""
        return frozenset()

    @property
    def required_top_k(self) -> int | None:
        """How many entries each row must keep: 0 for none, None for the whole vocabulary."""
        return 0

    @property
    def exact_entries(self) -> bool:
        """Whether a source's entries must be its largest, not drawn at random."""
        return False

    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """For each source, one weight for each of its M pairs: all 1, if a type does not say otherwise.

        `pivot` has the rows of the pivot as it was before training, without numbers unless `required_pivot_fields` asks for
        some. A pivot row has at most one pair with each source.
        """
        return [torch.ones(len(pair), device=pair.pivot.device) for pair in pairs]

    @property
    def required_eligibility(self) -> bool:
        """Whether `ExampleInfo.eligibility` must be known: which sources answered the prompt of an example rightly."""
        return False

    def source_priors(self, examples: Sequence[ExampleInfo], sources: int) -> Float[Tensor, "S E"] | None:
        """How much each source may count in each example, whatever its rows say: 1 in sum over sources, or 0 for all.

        None where nothing tells them apart.
        """
        return None

    def with_priors(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs], priors: Float[Tensor, "S E"]
    ) -> list[Float[Tensor, " _"]]:
        """Weights of the pairs with these priors of the sources in each example: their product, unless a type overrides it.

        A type that shares out 1 among the sources (`takes_priors`) goes on doing so with the priors.
        """
        each = zip(self(pivot, sources, pairs), priors, pairs, strict=True)
        return [scale_by_example(weight, prior, pivot, pair) for weight, prior, pair in each]

    def weigh(
        self,
        pivot: LogitRows,
        sources: Sequence[LogitRows],
        pairs: Sequence[Pairs],
        examples: Sequence[ExampleInfo],
    ) -> list[Float[Tensor, " _"]]:
        """Weights of all pairs of a batch with these examples: `__call__`, with the priors of the sources where there are any.

        A source whose prior is 0 in an example counts 0 there, and the others are weighed as if it were not there.
        """
        priors = self.source_priors(examples, len(sources)) if sources else None
        if priors is None:
            return self(pivot, sources, pairs)
        may_count = [prior[pivot.example[pair.pivot]] > 0 for prior, pair in zip(priors, pairs, strict=True)]
        kept = [Pairs(pair.pivot[may], pair.source[may]) for pair, may in zip(pairs, may_count, strict=True)]
        weights = self.with_priors(pivot, sources, kept, priors)
        return [
            weight.new_zeros(len(may)).masked_scatter(may, weight)
            for weight, may in zip(weights, may_count, strict=True)
        ]

    def example_factors(
        self, examples: Sequence[ExampleInfo], sources: int, step: int | None
    ) -> Float[Tensor, "S E"] | None:
        """A factor on the weights of all pairs of a source in an example, at a step of training; None for 1 everywhere.

        Without a step it is the mean over all steps.
        """
        return None

    @property
    def changes_with_steps(self) -> bool:
        """Whether `example_factors` differ from one step of training to the next."""
        return False

    @property
    def missing_shares(self) -> Literal["domain", "all"] | None:
        """Whether shares are still to be found on validation examples: of each domain, or of all together."""
        return None

    def with_shares(self, shares: Mapping[str, Sequence[float]]) -> Any:
        """Return the same weighting with these shares where some were to be found."""
        return self


def scale_by_example(
    weight: Float[Tensor, " M"], factor: Float[Tensor, " E"], positions: Positions, pairs: Pairs
) -> Float[Tensor, " M"]:
    """Multiply the weight of each pair by the factor of the example that it is in; `positions` are the pivot's."""
    return weight * factor.to(weight)[positions.example[pairs.pivot]]


class Sum(Weighting):
    """Every source counts fully everywhere, so three sources count three times as much as one (InfiFusion)."""

    kind: Literal["sum"] = "sum"


class Mean(Weighting):
    """Every source counts the same everywhere, and together as much as one."""

    kind: Literal["mean"] = "mean"
    takes_priors: ClassVar[bool] = True

    @override
    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        return [torch.full((len(pair),), 1 / len(pairs), device=pair.pivot.device) for pair in pairs]

    @override
    def with_priors(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs], priors: Float[Tensor, "S E"]
    ) -> list[Float[Tensor, " _"]]:
        return Sum().with_priors(pivot, sources, pairs, priors)  # the priors are the shares
