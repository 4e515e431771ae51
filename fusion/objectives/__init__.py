"""What the pivot is trained to: each objective a type of settings and a formula on rows.

base       what every objective is                  targets    what an objective gets to see of a batch
selection  which matched rows count                 base_classes  what a formula is called with
token/     matched tokens, by identity              rank/      the largest logits, by rank
graph/     graphs over the logits of an example     span/      likelihoods of spans of text
hidden/    hidden states                            spelling/  tokens, by probability and spelling
policy/    texts that the pivot wrote itself        preference/ a right answer and a wrong one
modules/   through a module of the objective's own  checks     complaints about rows that lack something

A term on hidden states of the pivot and its sources: `class Mine(HiddenObjective, PairObjective)`, the first from
hidden/states.py, the second the base class whose arguments it takes; with `kind` and `__call__`, in a file of hidden/; listed
in `OBJECTIVES` below and, to be tested with the others, in tests/helpers/contract.py. Loss, trainer, collator and cache stay as
they are; the user sets `extract.hidden_states: true`.
"""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from fusion.objectives.base import LoggedMean, Objective, Requirements, Term
from fusion.objectives.base_classes import (
    AllSourcesObjective,
    ExampleObjective,
    MappedObjective,
    MatchedObjective,
    PairObjective,
    RelationObjective,
    RowObjective,
    SourcewiseObjective,
    SpanObjective,
)
from fusion.objectives.graph.gld import GLD
from fusion.objectives.graph.gromov import GromovWasserstein
from fusion.objectives.hidden.affinity import Affinity
from fusion.objectives.hidden.hidden_projector import HiddenProjector
from fusion.objectives.hidden.optimal_transport import OptimalTransport
from fusion.objectives.hidden.span_relations import SpanRelations
from fusion.objectives.modules.base import ModuleObjective, ModuleSpec, OutputLayer
from fusion.objectives.modules.dual_head import DualHead
from fusion.objectives.modules.matcher import Matcher
from fusion.objectives.policy.base import PolicyObjective, RolloutObjective
from fusion.objectives.policy.group_reward import GroupReward
from fusion.objectives.policy.no_source import OPSA, LeastLikely
from fusion.objectives.policy.policy_gradient import PolicyGradient
from fusion.objectives.preference.base import PreferenceObjective
from fusion.objectives.preference.dpo import DPO, WRPO
from fusion.objectives.preference.infifpo import InfiFPO
from fusion.objectives.rank.infifusion import InfiFusion
from fusion.objectives.rank.uld import ULD
from fusion.objectives.selection import Confident, KnowsMore, Selection
from fusion.objectives.span.span_likelihood import SpanLikelihood
from fusion.objectives.spelling.hungarian import Hungarian
from fusion.objectives.targets import (
    BatchTargets,
    ObjectiveInputs,
    PreferenceTargets,
    RolloutTargets,
    SourceTargets,
)
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

OBJECTIVES: tuple[type[Objective], ...] = (
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
    PolicyGradient,
    GroupReward,
    LeastLikely,
    OPSA,
    DPO,
    WRPO,
    InfiFPO,
)
"""Every objective that a configuration may name. A new one is listed here, and for its tests in contract.py."""

if TYPE_CHECKING:
    AnyObjective = Objective
else:
    AnyObjective = Annotated[Union[OBJECTIVES], Field(discriminator="kind")]  # noqa: UP007  (a union of a tuple)

__all__ = [
    "DPO",
    "GLD",
    "L1",
    "LLP",
    "MSE",
    "NKD",
    "OBJECTIVES",
    "OPSA",
    "ULD",
    "USKD",
    "WRPO",
    "Affinity",
    "AlignDistil",
    "AllSourcesObjective",
    "AnyObjective",
    "BatchTargets",
    "Confident",
    "CrossEntropy",
    "DualHead",
    "ExampleObjective",
    "ForwardKL",
    "GromovWasserstein",
    "GroupReward",
    "HiddenProjector",
    "Hungarian",
    "InfiFPO",
    "InfiFusion",
    "JensenShannon",
    "KnowsMore",
    "LeastLikely",
    "LoggedMean",
    "LumiNet",
    "MappedObjective",
    "MatchedObjective",
    "Matcher",
    "Mixture",
    "ModuleObjective",
    "ModuleSpec",
    "Objective",
    "ObjectiveInputs",
    "OneVsRest",
    "OptimalTransport",
    "OutputLayer",
    "PairObjective",
    "PlackettLuce",
    "PolicyGradient",
    "PolicyObjective",
    "PreferenceObjective",
    "PreferenceTargets",
    "RelationObjective",
    "Requirements",
    "ReverseKL",
    "RolloutObjective",
    "RolloutTargets",
    "RowObjective",
    "Selection",
    "SkewedKL",
    "SourceTargets",
    "SourcewiseObjective",
    "SpanLikelihood",
    "SpanObjective",
    "SpanRelations",
    "Term",
    "TopKContrastive",
    "TopKDecoupled",
    "ZScoreKL",
]
