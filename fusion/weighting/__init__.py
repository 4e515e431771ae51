"""How much each source counts at each matched row. Weights are constants: no gradient flows through them."""

from typing import Annotated

from pydantic import Field

from fusion.weighting.base import Label, Mean, Sum, Weighting, times
from fusion.weighting.examples import EVERY, Learned, RandomSource
from fusion.weighting.likelihood import GoldPosterior, MaxMargin, MinimumCrossEntropy, likelihoods
from fusion.weighting.positions import PowerSum, Product, TokenScaled

AnyWeighting = Annotated[
    Sum
    | Mean
    | GoldPosterior
    | MinimumCrossEntropy
    | MaxMargin
    | TokenScaled
    | PowerSum
    | RandomSource
    | Learned
    | Product,
    Field(discriminator="kind"),
]

ALL = (Sum, Mean, GoldPosterior, MinimumCrossEntropy, MaxMargin, TokenScaled, PowerSum, RandomSource, Learned, Product)

__all__ = [
    "ALL",
    "EVERY",
    "AnyWeighting",
    "GoldPosterior",
    "Label",
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
    "likelihoods",
    "times",
]
