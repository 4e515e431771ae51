"""The table of weightings, and the product of several."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import override

from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, Pairs
from fusion.weighting.base import Mean, Sum, Weighting
from fusion.weighting.examples import Eligibility, Learned, RandomSource
from fusion.weighting.likelihood import GoldPosterior, MaxMargin, MinimumCrossEntropy
from fusion.weighting.positions import PowerSum, TokenScaled, Uncertainty

FACTORS: tuple[type[Weighting], ...] = (
    Sum,
    Mean,
    GoldPosterior,
    MinimumCrossEntropy,
    MaxMargin,
    TokenScaled,
    PowerSum,
    RandomSource,
    Learned,
    Eligibility,
    Uncertainty,
)
"""Every weighting that a configuration may name, alone or as a factor. A new one is listed here, and nowhere else."""

if TYPE_CHECKING:
    AnyFactor = Weighting
else:
    AnyFactor = Annotated[Union[FACTORS], Field(discriminator="kind")]  # noqa: UP007  (a union of a tuple)


class Product(Weighting):
    """The product of several weightings: say, how much each source counts, times how much each position does."""

    kind: Literal["product"] = "product"
    factors: list[AnyFactor] = Field(min_length=1)
    """The weightings whose weights are multiplied; with `eligibility`, the first that shares out 1 among the sources takes it
    for priors."""

    @field_validator("factors")
    @classmethod
    def _eligibility_goes_with_the_others(cls, value: list[Weighting]) -> list[Weighting]:
        kinds = [factor.kind for factor in value]
        if kinds.count("eligibility") > 1:
            raise ValueError("has eligibility twice; once is enough")
        if "eligibility" in kinds and (drawn := [kind for kind in kinds if kind in ("random_source", "learned")]):
            raise ValueError(
                f"has eligibility and {drawn[0]}, whose shares take no notice of who answered rightly: what it gives to a "
                "source that did not would go to nobody. Use gold_posterior, minimum_cross_entropy, max_margin or mean "
                f"instead of {drawn[0]}, or leave eligibility out"
            )
        return value

    @property
    @override
    def selects_one_source(self) -> bool:
        return any(factor.selects_one_source for factor in self.factors)

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset().union(*(factor.required_source_fields for factor in self.factors))

    @property
    @override
    def required_top_k(self) -> int | None:
        each = [factor.required_top_k for factor in self.factors]
        return None if None in each else max(e for e in each if e is not None)

    @property
    @override
    def exact_entries(self) -> bool:
        return any(factor.exact_entries for factor in self.factors)

    @property
    @override
    def required_pivot_fields(self) -> frozenset[str]:
        return frozenset().union(*(factor.required_pivot_fields for factor in self.factors))

    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """The product of the factors' weights of each pair."""
        each = [factor(pivot, sources, pairs) for factor in self.factors]
        return [functools.reduce(operator.mul, weights) for weights in zip(*each, strict=True)]

    @property
    @override
    def required_eligibility(self) -> bool:
        return any(factor.required_eligibility for factor in self.factors)

    @override
    def source_priors(self, examples: Sequence[ExampleInfo], sources: int) -> Float[Tensor, "S E"] | None:
        """Those of the factor that has any."""
        each = (factor.source_priors(examples, sources) for factor in self.factors)
        return next((priors for priors in each if priors is not None), None)

    @override
    def with_priors(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs], priors: Float[Tensor, "S E"]
    ) -> list[Float[Tensor, " _"]]:
        """The product, in which the priors are in the factor that shares out 1 among the sources, or one more factor."""
        at = next((factor for factor in self.factors if factor.takes_priors), Sum())
        others = [factor for factor in self.factors if factor is not at]
        each = [at.with_priors(pivot, sources, pairs, priors), *(factor(pivot, sources, pairs) for factor in others)]
        return [functools.reduce(operator.mul, weights) for weights in zip(*each, strict=True)]

    @override
    def example_factors(
        self, examples: Sequence[ExampleInfo], sources: int, step: int | None
    ) -> Float[Tensor, "S E"] | None:
        """The product of those that the factors have."""
        each = [factor.example_factors(examples, sources, step) for factor in self.factors]
        return functools.reduce(lambda a, b: b if a is None else a if b is None else a * b, each)

    @property
    @override
    def changes_with_steps(self) -> bool:
        return any(factor.changes_with_steps for factor in self.factors)

    @property
    @override
    def missing_shares(self) -> Literal["domain", "all"] | None:
        return next(filter(None, (factor.missing_shares for factor in self.factors)), None)

    @override
    def with_shares(self, shares: Mapping[str, Sequence[float]]) -> Any:
        return self.model_copy(update={"factors": [factor.with_shares(shares) for factor in self.factors]})
