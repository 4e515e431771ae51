"""What the pivot is trained to: each objective a type, their union the list of them."""

from typing import Annotated

from pydantic import Field

from fusion.objectives.affinity import Affinity
from fusion.objectives.aligndistil import AlignDistil
from fusion.objectives.base import (
    ExampleObjective,
    JoinedObjective,
    MappedObjective,
    Objective,
    PairObjective,
    RelationObjective,
    RowObjective,
    SourcesObjective,
    SpanObjective,
    SpelledObjective,
)
from fusion.objectives.cross_entropy import CrossEntropy
from fusion.objectives.divergences import L1, ForwardKL, JensenShannon, ReverseKL, SkewedKL
from fusion.objectives.dual_head import DualHead
from fusion.objectives.gld import GLD
from fusion.objectives.gromov import GromovWasserstein
from fusion.objectives.hidden_projector import HiddenProjector
from fusion.objectives.hungarian import Hungarian
from fusion.objectives.infifusion import InfiFusion
from fusion.objectives.llp import LLP
from fusion.objectives.luminet import LumiNet
from fusion.objectives.matcher import Matcher
from fusion.objectives.mixture import Mixture
from fusion.objectives.mse import MSE
from fusion.objectives.nkd import NKD, USKD
from fusion.objectives.one_vs_rest import OneVsRest
from fusion.objectives.optimal_transport import OptimalTransport
from fusion.objectives.owned import Between, OutputLayer, OwningObjective
from fusion.objectives.plackett_luce import PlackettLuce
from fusion.objectives.selection import Confident, KnowsMore, Selection
from fusion.objectives.span_likelihood import SpanLikelihood
from fusion.objectives.span_relations import SpanRelations
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
    | AlignDistil
    | Affinity
    | SpanRelations
    | OptimalTransport
    | HiddenProjector
    | DualHead
    | Matcher,
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
    Affinity,
    SpanRelations,
    OptimalTransport,
    HiddenProjector,
    DualHead,
    Matcher,
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
    "Affinity",
    "AlignDistil",
    "AnyObjective",
    "Between",
    "Confident",
    "CrossEntropy",
    "DualHead",
    "ExampleObjective",
    "ForwardKL",
    "GromovWasserstein",
    "HiddenProjector",
    "Hungarian",
    "InfiFusion",
    "JensenShannon",
    "JoinedObjective",
    "KnowsMore",
    "LumiNet",
    "MappedObjective",
    "Matcher",
    "Mixture",
    "Objective",
    "OneVsRest",
    "OptimalTransport",
    "OutputLayer",
    "OwningObjective",
    "PairObjective",
    "PlackettLuce",
    "RelationObjective",
    "ReverseKL",
    "RowObjective",
    "Selection",
    "SkewedKL",
    "SourcesObjective",
    "SpanLikelihood",
    "SpanObjective",
    "SpanRelations",
    "SpelledObjective",
    "TopKContrastive",
    "TopKDecoupled",
    "ZScoreKL",
]
