"""How much each source counts at each matched row. Weights are constants: no gradient flows through them."""

from typing import Annotated

from pydantic import Field

from fusion.weighting.base import Mean, Sum, Weighting
from fusion.weighting.likelihood import GoldPosterior, MaxMargin, MinimumCrossEntropy, likelihoods
from fusion.weighting.tokens import PowerSum, Product, TokenScaled

AnyWeighting = Annotated[
    Sum | Mean | GoldPosterior | MinimumCrossEntropy | MaxMargin | TokenScaled | PowerSum | Product,
    Field(discriminator="kind"),
]

ALL = (Sum, Mean, GoldPosterior, MinimumCrossEntropy, MaxMargin, TokenScaled, PowerSum, Product)

__all__ = [
    "ALL",
    "AnyWeighting",
    "GoldPosterior",
    "MaxMargin",
    "Mean",
    "MinimumCrossEntropy",
    "PowerSum",
    "Product",
    "Sum",
    "TokenScaled",
    "Weighting",
    "likelihoods",
]
