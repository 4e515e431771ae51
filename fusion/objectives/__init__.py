"""What the pivot is trained to: each objective a type, their union the list of them."""

from typing import Annotated

from pydantic import Field

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
from fusion.objectives.graph.gld import GLD
from fusion.objectives.graph.gromov import GromovWasserstein
from fusion.objectives.hidden.affinity import Affinity
from fusion.objectives.hidden.hidden_projector import HiddenProjector
from fusion.objectives.hidden.optimal_transport import OptimalTransport
from fusion.objectives.hidden.span_relations import SpanRelations
from fusion.objectives.modules.base import Between, OutputLayer, OwningObjective
from fusion.objectives.modules.dual_head import DualHead
from fusion.objectives.modules.matcher import Matcher
from fusion.objectives.rank.infifusion import InfiFusion
from fusion.objectives.rank.uld import ULD
from fusion.objectives.selection import Confident, KnowsMore, Selection
from fusion.objectives.span.span_likelihood import SpanLikelihood
from fusion.objectives.spelling.hungarian import Hungarian
from fusion.objectives.token.aligndistil import AlignDistil
from fusion.objectives.token.cross_entropy import CrossEntropy
from fusion.objectives.token.divergences import L1, ForwardKL, JensenShannon, ReverseKL, SkewedKL
from fusion.objectives.token.llp import LLP
from fusion.objectives.token.luminet import LumiNet
from fusion.objectives.token.mixture import Mixture
from fusion.objectives.token.mse import MSE
from fusion.objectives.token.nkd import NKD, USKD
from fusion.objectives.token.one_vs_rest import OneVsRest
from fusion.objectives.token.plackett_luce import PlackettLuce
from fusion.objectives.token.topkd import TopKContrastive, TopKDecoupled
from fusion.objectives.token.zscore_kl import ZScoreKL

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
