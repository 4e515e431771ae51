"""What the pivot is trained to: each objective a type, their union the list of them."""

from typing import Annotated

from pydantic import Field

from fusion.objectives.base import ExampleObjective, MappedObjective, Objective, PairObjective, RowObjective
from fusion.objectives.cross_entropy import CrossEntropy
from fusion.objectives.forward_kl import ForwardKL
from fusion.objectives.gld import GLD
from fusion.objectives.infifusion import InfiFusion
from fusion.objectives.uld import ULD

AnyObjective = Annotated[CrossEntropy | ULD | InfiFusion | GLD | ForwardKL, Field(discriminator="kind")]

ALL = (CrossEntropy, ULD, InfiFusion, GLD, ForwardKL)

__all__ = [
    "ALL",
    "GLD",
    "ULD",
    "AnyObjective",
    "CrossEntropy",
    "ExampleObjective",
    "ForwardKL",
    "InfiFusion",
    "MappedObjective",
    "Objective",
    "PairObjective",
    "RowObjective",
]
