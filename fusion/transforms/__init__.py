"""What is done to a source's rows before any objective sees them."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from fusion.transforms.base import MappedTransform, SourceTransform, Transform
from fusion.transforms.power import Power
from fusion.transforms.top_k import TopKUniform
from fusion.transforms.true_token import GoldOnly, LogitSwap, TopKScale

TRANSFORMS: tuple[type[Transform], ...] = (Power, TopKUniform, LogitSwap, TopKScale, GoldOnly)
"""Every transform that a configuration may name. A new one is listed here, and nowhere else."""

if TYPE_CHECKING:
    AnyTransform = Transform
else:
    AnyTransform = Annotated[Union[TRANSFORMS], Field(discriminator="kind")]  # noqa: UP007  (a union of a tuple)

__all__ = [
    "TRANSFORMS",
    "AnyTransform",
    "GoldOnly",
    "LogitSwap",
    "MappedTransform",
    "Power",
    "SourceTransform",
    "TopKScale",
    "TopKUniform",
    "Transform",
]
