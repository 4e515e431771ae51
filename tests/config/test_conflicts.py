"""Every rule of the table, what it lets pass, and that a configuration is refused by it."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from fusion.config.conflicts import RULES, Choices, conflicts
from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives import (
    GLD,
    USKD,
    Affinity,
    AlignDistil,
    Confident,
    CrossEntropy,
    DualHead,
    ForwardKL,
    HiddenProjector,
    InfiFusion,
    Matcher,
    Mixture,
    OptimalTransport,
    ReverseKL,
    SourcewiseObjective,
    SpanLikelihood,
    SpanObjective,
    ZScoreKL,
)
from fusion.transforms import GoldOnly, LogitSwap, Power, TopKUniform
from fusion.weighting import GoldPosterior, Learned, MaxMargin, PowerSum, Product, RandomSource, Sum, TokenScaled
from tests.helpers import runs
from tests.helpers.contract import EXAMPLES, case


def choices(**changed) -> Choices:
    plain = {
        "objectives": [CrossEntropy(), ForwardKL()],
        "weighting": Sum(),
        "transforms": {"a": [], "b": []},
        "top_k": 10,
        "alignment": "prefix",
        "strategies": ["unified", "pairwise"],
    }
    return Choices(**(plain | changed))


ALIGN = AlignDistil(expert="a", opposite="b")
OFFENCES = [
    ({"weighting": PowerSum(gamma=0.5)}, r"weighting \(power_sum\) with tail: exact .* keeps 10 entries"),
    ({"weighting": Product(factors=[Sum(), PowerSum(gamma=0.5)])}, r"weighting \(product\) with tail: exact"),
    ({"transforms": {"a": [Power(gamma=0.5)]}}, r"sources\[0\] \(a\).transforms\[0\] \(power\) with tail: exact"),
    (
        {"transforms": {"a": [TopKUniform(top_k=11)]}},
        r"\(topk_uniform\) reads 11 entries of each row, extract.top_k keeps 10; raise it",
    ),
    (
        {"transforms": {"a": [TopKUniform(top_k=4)]}, "objectives": [InfiFusion(top_k=10)]},
        r"\(topk_uniform\) leaves 4 entries of each row, objectives\[0\] \(infifusion\) reads 10; raise the transform's",
    ),
    ({"objectives": [ALIGN], "transforms": {"a": []}, "strategies": ["unified"]}, r"names source b; the sources are a"),
    ({"objectives": [ALIGN]}, r"objectives\[0\] \(aligndistil\) needs 2 sources at once, .* strategies: \[unified\]"),
    (
        {"objectives": [ALIGN], "strategies": ["unified"], "weighting": Product(factors=[Sum(), MaxMargin()])},
        r"\(aligndistil\) needs 2 sources at each row, and weighting: max_margin lets one count",
    ),
    (
        {"objectives": [ALIGN], "strategies": ["unified"], "weighting": RandomSource()},
        r"\(aligndistil\) needs 2 sources at each row, and weighting: random_source lets one count",
    ),
    (
        {"objectives": [InfiFusion()], "transforms": {"x": [], "a": [LogitSwap()]}},
        r"sources\[1\] \(a\).transforms\[0\] \(logit_swap\) changes rows .* none of the objectives reads those",
    ),
    (
        {"objectives": [CrossEntropy(), InfiFusion()], "transforms": {"a": [Power(gamma=0.5, tail="single")]}},
        r"\(power\) is a factor on the logits, which nothing here sees: infifusion look at the shape",
    ),
    (
        {"objectives": [GLD(), ZScoreKL()], "transforms": {"a": [Power(gamma=0.5, tail="single")]}},
        r"which nothing here sees: gld and zscore_kl look at the shape",
    ),
    (
        {"transforms": {"a": [LogitSwap(), Power(gamma=0.5, tail="even")]}},
        r"source a: power works in the source's own vocabulary.* list it before logit_swap",
    ),
    (
        {"objectives": [InfiFusion()], "sampled": True},
        r"objectives\[0\] \(infifusion\) reads ranks, ratios, .* at random",
    ),
    ({"objectives": [Mixture(objective=ReverseKL())], "sampled": True}, r"objectives\[0\] \(mixture\) reads ranks"),
    ({"objectives": [ForwardKL(tail="residual_to_gold")], "sampled": True}, r"\(forward_kl\) reads ranks"),
    (
        {"objectives": [ForwardKL(select=Confident(threshold=0.5))], "sampled": True},
        r"objectives\[0\] \(forward_kl\) reads ranks, ratios",
    ),
    ({"weighting": PowerSum(gamma=0.5, tail="single"), "sampled": True}, r"weighting \(power_sum\) reads ranks"),
    (
        {"weighting": Product(factors=[Sum(), PowerSum(gamma=0.5, tail="single")]), "sampled": True},
        r"weighting \(product\) reads ranks",
    ),
    ({"transforms": {"a": [LogitSwap()]}, "sampled": True}, r"\(logit_swap\) reads ranks.* no transform"),
    (
        {"weighting": RandomSource(probabilities=[1.0]), "strategies": ["unified"]},
        r"weighting \(random_source\).probabilities has 1 numbers, one is needed for each of a, b",
    ),
    (
        {"weighting": Product(factors=[Sum(), Learned(shares={"*": [0.1, 0.2, 0.3]})])},
        r"weighting \(learned\).shares.\* has 3 numbers, one is needed for each of a, b",
    ),
    ({"weighting": RandomSource()}, r"random_source draws among all sources, .* use strategies: \[unified\]"),
    (
        {"weighting": Learned(shares={"x": [0.1, 0.2]}), "domains": ["x", "y"]},
        r"weighting \(learned\).shares has none for domain y; add them, or `\*`",
    ),
    (
        {"weighting": Learned(shares={"x": [0.1, 0.2], "z": [0.1, 0.2]}), "domains": ["x"]},
        r"weighting \(learned\).shares names domain z; the domains of data.train are x",
    ),
    ({"objectives": [CrossEntropy(weight=0), ForwardKL(weight=0)]}, "objectives: every weight is 0"),
    ({"objectives": [SpanLikelihood()], "alignment": "dtw"}, r"\(span_likelihood\) compares .* use alignment: prefix"),
    (
        {"objectives": [CrossEntropy(), HiddenProjector()], "engine": "zero3"},
        r"objectives\[1\] \(hidden_projector\) trains a module .* engine.kind zero3 does not; use auto, single, ddp",
    ),
    (
        {"objectives": [OptimalTransport()], "adapter": "lora"},
        r"\(optimal_transport\) trains a module .* checkpoints with adapter: lora do not keep; leave out",
    ),
    (
        {"objectives": [DualHead()], "weightless": ["b"]},
        r"\(dual_head\) with head: source reads the output layer of source b, whose weights are not here; set head to",
    ),
    (
        {"objectives": [DualHead(head="cache", loss="kl")], "top_k": 10},
        r"objectives\[0\] \(dual_head\) with head: cache recovers .* keeps 10 entries of each; set it to all",
    ),
]
FINE = [
    {},
    {"weighting": PowerSum(gamma=0.5, tail="single")},
    {"weighting": PowerSum(gamma=0.5), "top_k": "all"},
    {"transforms": {"a": [Power(gamma=0.5)]}, "top_k": "all"},
    {"objectives": [ALIGN], "strategies": ["unified"]},
    {"objectives": [Mixture()], "transforms": {"a": [LogitSwap(), GoldOnly()]}},
    {"objectives": [InfiFusion(), ForwardKL()], "transforms": {"a": [Power(gamma=0.5, tail="single"), LogitSwap()]}},
    {"objectives": [ZScoreKL()]},
    {"objectives": [InfiFusion(zscore=False)], "transforms": {"a": [Power(gamma=0.5, tail="single")]}},
    {"objectives": [GLD(input="raw")], "transforms": {"a": [Power(gamma=0.5, tail="single")]}},
    {"objectives": [SpanLikelihood()]},
    {"objectives": [Affinity()], "engine": "fsdp2", "adapter": "lora", "weightless": ["a"]},
    {"objectives": [HiddenProjector(), DualHead()], "engine": "ddp"},
    {"objectives": [DualHead(head="basis.safetensors", loss="kl")], "weightless": ["a"]},
    {"objectives": [DualHead(head="cache", loss="kl")], "top_k": "all", "weightless": ["a"]},
    {"transforms": {"a": [Power(gamma=0.5)]}, "objectives": [Matcher()], "top_k": "all"},  # its term sees temperatures
    {"alignment": "truncate"},
    {"objectives": [CrossEntropy(), USKD(), SpanLikelihood(), ForwardKL(), Mixture()], "sampled": True},
    {"objectives": [ForwardKL(select=Confident(threshold=0.5, model="pivot"), tail="none")], "sampled": True},
    {"weighting": Product(factors=[GoldPosterior(), TokenScaled()]), "sampled": True},
    {"transforms": {"a": [TopKUniform(top_k=10)]}, "objectives": [InfiFusion(top_k=10)]},
    {"weighting": RandomSource(probabilities=[0.2, 0.8]), "strategies": ["unified"]},
    {"weighting": Learned(shares={"x": [0.1, 0.2], "*": [0.0, 0.0]}), "domains": ["x", "y"]},
    {"weighting": Learned(), "domains": ["x", "y"]},
]


@pytest.mark.parametrize(("changed", "sentence"), OFFENCES, ids=[each[1] for each in OFFENCES])
def test_each_offence_is_named_with_its_reason_and_alone(changed, sentence):
    (found,) = conflicts(choices(**changed))
    assert re.search(sentence, found), found


def test_every_rule_has_an_offence():
    broken = {rule for changed, _ in OFFENCES for rule in RULES if list(rule(choices(**changed)))}
    assert broken == set(RULES)


@pytest.mark.parametrize("changed", FINE, ids=repr)
def test_what_goes_together_passes(changed):
    assert conflicts(choices(**changed)) == []


def test_a_configuration_says_all_its_conflicts_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)power_sum.*span_likelihood"):
        runs.config(
            tmp_path,
            weighting={"kind": "power_sum", "gamma": 0.5},
            objectives=[{"kind": "span_likelihood"}],
            alignment="truncate",
        )


def test_the_pivot_may_be_a_source_of_itself_where_it_answers_or_says_something_else(tmp_path):
    raw = runs.raw(tmp_path)
    itself = {"name": "itself", "path": raw["pivot"]["path"]}
    alone = [{"kind": "cross_entropy"}, {"kind": "forward_kl", "weight": 0}]
    with pytest.raises(
        ValueError, match=r"source itself is the pivot itself .* no objective reads what it predicts: give one"
    ):
        runs.config(tmp_path, sources=[itself], objectives=alone)
    held = runs.config(tmp_path, sources=[itself], objectives=[{"kind": "cross_entropy"}, {"kind": "forward_kl"}])
    assert not held.sources[0].differs_from_pivot
    config = runs.config(tmp_path, sources=[itself | {"transforms": [{"kind": "logit_swap"}]}])
    assert config.sources[0].transforms == [LogitSwap()]
    config = runs.config(tmp_path, sources=[itself | {"backend": {"kind": "similarity"}}])
    assert config.sources[0].differs_from_pivot
    data = raw["data"] | {"responses": {"kind": "best_source"}}
    assert runs.config(tmp_path, sources=[itself], data=data).sources[0].name == "itself"


def in_power(power: Power, rows: LogitRows | MappedRows) -> LogitRows | MappedRows:
    """The rows as if they had been mapped of rows that `power` changed."""
    if isinstance(rows, LogitRows):
        return power(rows, 31)
    own = LogitRows(
        rows.logprobs, rows.ids, rows.pivot_token_logprob, rows.mean, rows.std, prefix=rows.prefix, example=rows.example
    )
    made = power(own, 31)
    changed = {"logprobs": made.logprobs, "ids": made.ids, "mean": made.mean, "std": made.std}
    return dataclasses.replace(rows, **changed, pivot_token_logprob=made.gold)


@pytest.mark.parametrize(
    "objective",
    [o for o in EXAMPLES if isinstance(o, SourcewiseObjective) and not isinstance(o, SpanObjective)],
    ids=repr,
)
def test_a_term_is_said_to_be_blind_to_scale_exactly_if_a_factor_on_the_sources_logits_changes_nothing(objective):
    tried = case(objective, dtype=torch.float64)
    power = Power(gamma=0.5) if objective.required_top_k is None else Power(gamma=0.5, tail="single")  # or whole rows
    tempered = dataclasses.replace(tried, source=in_power(power, tried.source))
    same = torch.allclose(tempered.values(), tried.values(), rtol=1e-4, atol=1e-6)
    assert same != objective.requirements.logit_scale
