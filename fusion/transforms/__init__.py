"""What is done to a source's rows before any objective sees them."""

from typing import Annotated

from pydantic import Field

from fusion.transforms.base import MappedTransform, OwnTransform, Transform
from fusion.transforms.power import Power
from fusion.transforms.top_k import TopKUniform
from fusion.transforms.true_token import GoldOnly, LogitSwap, TopKScale

AnyTransform = Annotated[Power | TopKUniform | LogitSwap | TopKScale | GoldOnly, Field(discriminator="kind")]

ALL = (Power, TopKUniform, LogitSwap, TopKScale, GoldOnly)

__all__ = [
    "ALL",
    "AnyTransform",
    "GoldOnly",
    "LogitSwap",
    "MappedTransform",
    "OwnTransform",
    "Power",
    "TopKScale",
    "TopKUniform",
    "Transform",
]
