"""How much each source counts at each matched row. Weights are constants: no gradient flows through them."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from fusion.weighting.base import Mean, Sum, Weighting, scale_by_example
from fusion.weighting.examples import ALL_DOMAINS, Learned, RandomSource
from fusion.weighting.likelihood import GoldPosterior, MaxMargin, MinimumCrossEntropy, span_likelihoods
from fusion.weighting.positions import PowerSum, Product, TokenScaled

WEIGHTINGS: tuple[type[Weighting], ...] = (
    Sum,
    Mean,
    GoldPosterior,
    MinimumCrossEntropy,
    MaxMargin,
    TokenScaled,
    PowerSum,
    RandomSource,
    Learned,
    Product,
)
"""Every weighting that a configuration may name. A new one is listed here, and nowhere else."""

if TYPE_CHECKING:
    AnyWeighting = Weighting
else:
    AnyWeighting = Annotated[Union[WEIGHTINGS], Field(discriminator="kind")]  # noqa: UP007  (a union of a tuple)

__all__ = [
    "ALL_DOMAINS",
    "WEIGHTINGS",
    "AnyWeighting",
    "GoldPosterior",
    "Learned",
    "MaxMargin",
    "Mean",
    "MinimumCrossEntropy",
    "PowerSum",
    "Product",
    "RandomSource",
    "Sum",
    "TokenScaled",
    "Weighting",
    "scale_by_example",
    "span_likelihoods",
]
