"""What the pivot is trained to: each objective a type, their union the list of them."""

from typing import Annotated

from pydantic import Field

from fusion.objectives.aligndistil import AlignDistil
from fusion.objectives.base import (
    Confident,
    ExampleObjective,
    MappedObjective,
    Objective,
    PairObjective,
    RowObjective,
    SourcesObjective,
    SpanObjective,
    SpelledObjective,
)
from fusion.objectives.cross_entropy import CrossEntropy
from fusion.objectives.divergences import L1, ForwardKL, JensenShannon, ReverseKL, SkewedKL
from fusion.objectives.gld import GLD
from fusion.objectives.gromov import GromovWasserstein
from fusion.objectives.hungarian import Hungarian
from fusion.objectives.infifusion import InfiFusion
from fusion.objectives.llp import LLP
from fusion.objectives.luminet import LumiNet
from fusion.objectives.mixture import Mixture
from fusion.objectives.mse import MSE
from fusion.objectives.nkd import NKD, USKD
from fusion.objectives.one_vs_rest import OneVsRest
from fusion.objectives.plackett_luce import PlackettLuce
from fusion.objectives.span_likelihood import SpanLikelihood
from fusion.objectives.topkd import TopKContrastive, TopKDecoupled
from fusion.objectives.uld import ULD
from fusion.objectives.zscore_kl import ZScoreKL

AnyObjective = Annotated[
    CrossEntropy
    | ULD
    | InfiFusion
    | GLD
    | GromovWasserstein
    | Hungarian
    | ForwardKL
    | ReverseKL
    | JensenShannon
    | SkewedKL
    | L1
    | MSE
    | PlackettLuce
    | NKD
    | USKD
    | OneVsRest
    | ZScoreKL
    | LLP
    | TopKDecoupled
    | TopKContrastive
    | LumiNet
    | SpanLikelihood
    | Mixture
    | AlignDistil,
    Field(discriminator="kind"),
]

ALL = (
    CrossEntropy,
    ULD,
    InfiFusion,
    GLD,
    GromovWasserstein,
    Hungarian,
    ForwardKL,
    ReverseKL,
    JensenShannon,
    SkewedKL,
    L1,
    MSE,
    PlackettLuce,
    NKD,
    USKD,
    OneVsRest,
    ZScoreKL,
    LLP,
    TopKDecoupled,
    TopKContrastive,
    LumiNet,
    SpanLikelihood,
    Mixture,
    AlignDistil,
)

__all__ = [
    "ALL",
    "GLD",
    "L1",
    "LLP",
    "MSE",
    "NKD",
    "ULD",
    "USKD",
    "AlignDistil",
    "AnyObjective",
    "Confident",
    "CrossEntropy",
    "ExampleObjective",
    "ForwardKL",
    "GromovWasserstein",
    "Hungarian",
    "InfiFusion",
    "JensenShannon",
    "LumiNet",
    "MappedObjective",
    "Mixture",
    "Objective",
    "OneVsRest",
    "PairObjective",
    "PlackettLuce",
    "ReverseKL",
    "RowObjective",
    "SkewedKL",
    "SourcesObjective",
    "SpanLikelihood",
    "SpanObjective",
    "SpelledObjective",
    "TopKContrastive",
    "TopKDecoupled",
    "ZScoreKL",
]
