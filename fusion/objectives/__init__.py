"""What the pivot is trained to: each objective a type, their union the list of them."""

from typing import Annotated

from pydantic import Field

from fusion.objectives.base import (
    Confident,
    ExampleObjective,
    MappedObjective,
    Objective,
    PairObjective,
    RowObjective,
    SourcesObjective,
    SpanObjective,
)
from fusion.objectives.cross_entropy import CrossEntropy
from fusion.objectives.divergences import L1, ForwardKL, JensenShannon, ReverseKL, SkewedKL
from fusion.objectives.gld import GLD
from fusion.objectives.gromov import GromovWasserstein
from fusion.objectives.infifusion import InfiFusion
from fusion.objectives.mixture import Mixture
from fusion.objectives.span_likelihood import SpanLikelihood
from fusion.objectives.uld import ULD

AnyObjective = Annotated[
    CrossEntropy
    | ULD
    | InfiFusion
    | GLD
    | GromovWasserstein
    | ForwardKL
    | ReverseKL
    | JensenShannon
    | SkewedKL
    | L1
    | SpanLikelihood
    | Mixture,
    Field(discriminator="kind"),
]

ALL = (
    CrossEntropy,
    ULD,
    InfiFusion,
    GLD,
    GromovWasserstein,
    ForwardKL,
    ReverseKL,
    JensenShannon,
    SkewedKL,
    L1,
    SpanLikelihood,
    Mixture,
)

__all__ = [
    "ALL",
    "GLD",
    "L1",
    "ULD",
    "AnyObjective",
    "Confident",
    "CrossEntropy",
    "ExampleObjective",
    "ForwardKL",
    "GromovWasserstein",
    "InfiFusion",
    "JensenShannon",
    "MappedObjective",
    "Mixture",
    "Objective",
    "PairObjective",
    "ReverseKL",
    "RowObjective",
    "SkewedKL",
    "SourcesObjective",
    "SpanLikelihood",
    "SpanObjective",
]
