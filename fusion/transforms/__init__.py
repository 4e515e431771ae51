"""What is done to a source's rows before any objective sees them."""

from typing import Annotated

from pydantic import Field

from fusion.transforms.base import MappedTransform, OwnTransform, Transform
from fusion.transforms.gold import GoldOnly, LogitSwap, TopKScale
from fusion.transforms.power import Power

AnyTransform = Annotated[Power | LogitSwap | TopKScale | GoldOnly, Field(discriminator="kind")]

ALL = (Power, LogitSwap, TopKScale, GoldOnly)

__all__ = [
    "ALL",
    "AnyTransform",
    "GoldOnly",
    "LogitSwap",
    "MappedTransform",
    "OwnTransform",
    "Power",
    "TopKScale",
    "Transform",
]
