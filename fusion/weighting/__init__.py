"""How much each source counts at each matched row. Weights are constants: no gradient flows through them.

The collator has the configured weighting `weigh` each batch, with the rows of the pivot before training and of all sources
as they are in the caches, before any transform; the answer is one weight for each pair of rows. The default is `sum`, each
source counts 1. To add one: derive from `Weighting` (base.py), write its `__call__`, list it in `FACTORS` (product.py).

likelihood   by who finds the text likely       positions   by how sure a source is at a position
examples     by the example and the step        product     the table of all, and the product of several
"""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from fusion.weighting.base import Mean, Sum, Weighting, scale_by_example
from fusion.weighting.examples import ALL_DOMAINS, Eligibility, Learned, RandomSource
from fusion.weighting.likelihood import GoldPosterior, MaxMargin, MinimumCrossEntropy, span_likelihoods
from fusion.weighting.positions import PowerSum, TokenScaled, Uncertainty
from fusion.weighting.product import FACTORS, Product

WEIGHTINGS: tuple[type[Weighting], ...] = (*FACTORS, Product)

if TYPE_CHECKING:
    AnyWeighting = Weighting
else:
    AnyWeighting = Annotated[Union[WEIGHTINGS], Field(discriminator="kind")]  # noqa: UP007  (a union of a tuple)

__all__ = [
    "ALL_DOMAINS",
    "WEIGHTINGS",
    "AnyWeighting",
    "Eligibility",
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
    "Uncertainty",
    "Weighting",
    "scale_by_example",
    "span_likelihoods",
]
