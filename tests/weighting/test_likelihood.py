"""Weights of sources against slow references on random texts, worked examples, and what must not change them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, Pairs
from fusion.weighting import (
    WEIGHTINGS,
    AnyWeighting,
    Eligibility,
    GoldPosterior,
    Learned,
    MaxMargin,
    Mean,
    MinimumCrossEntropy,
    PowerSum,
    Product,
    RandomSource,
    Sum,
    TokenScaled,
    Uncertainty,
    span_likelihoods,
)
from tests.helpers import reference

LEVELS = ("position", "span", "example")
SHARES = [Sum(), Mean(), *(GoldPosterior(level=level) for level in LEVELS), MinimumCrossEntropy()]
SHARES += [MaxMargin(level="span"), MaxMargin()]
BY_GOLD = [*SHARES[2:], TokenScaled(), Product(factors=[Mean(), GoldPosterior()])]
EXAMPLES = [*SHARES[:2], *BY_GOLD, PowerSum(gamma=0.5, tail="single"), RandomSource(), Learned(shares={"*": [0.5]})]
EXAMPLES += [Eligibility(), Uncertainty(), Product(factors=[GoldPosterior(), Eligibility()])]
every_weighting = pytest.mark.parametrize("weighting", EXAMPLES, ids=repr)


def rows(boundaries: Sequence[tuple[int, Sequence[int]]], gold: Sequence[float] | torch.Tensor) -> LogitRows:
    """Rows at these (example, prefixes), with these log-probabilities of the true token, their only entry."""
    example = torch.tensor([e for e, prefixes in boundaries for _ in prefixes], dtype=torch.long)
    prefix = torch.tensor([b for _, prefixes in boundaries for b in prefixes], dtype=torch.long)
    values = torch.as_tensor(gold, dtype=torch.float32)
    ids = torch.zeros(len(example), 1, dtype=torch.long)
    return LogitRows(values[:, None], ids, values, values, values, prefix=prefix, example=example)


def match_prefixes(pivot: LogitRows, source: LogitRows) -> Pairs:
    """Rows with the same example and prefix, every pair of them looked at; no pair where the prefix is unknown."""
    found = [
        (n, m)
        for n in range(len(pivot))
        for m in range(len(source))
        if pivot.example[n] == source.example[m] and pivot.prefix[n] == source.prefix[m] >= 0
    ]
    both = torch.tensor(found, dtype=torch.long).reshape(-1, 2)
    return Pairs(both[:, 0], both[:, 1])


def random_batch(seed: int, sources: int, examples: Sequence[int] = (4, 9, 2), matched: float = 1.0):
    """A pivot and sources that cut the same texts at random, and a share of their matching rows.

    Some sources lack an example, some stop early, some prefixes are -1.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    def model(order: Sequence[int], complete: bool) -> LogitRows:
        texts = []
        for e in order:
            inner = [b for b in range(1, 20 + e) if draw(3)]
            inner = [-1 if draw(8) == 0 else b for b in inner]
            whole = [0, *inner, 20 + e]
            if complete or draw(4):
                texts.append((e, whole if complete or draw(2) else whole[: 3 + draw(9)]))
        count = sum(len(prefixes) for _, prefixes in texts)
        return rows(texts, -3 * torch.rand(count, generator=generator))

    pivot = model(examples, complete=True)
    others = [model([*reversed(examples), 7], complete=False) for _ in range(sources)]
    pairs = [match_prefixes(pivot, other) for other in others]
    kept = [torch.rand(len(pair), generator=generator) < matched for pair in pairs]
    return pivot, others, [Pairs(p.pivot[keep], p.source[keep]) for p, keep in zip(pairs, kept, strict=True)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sources", [1, 2, 4])
@pytest.mark.parametrize("matched", [1.0, 0.8])
@pytest.mark.parametrize("level", LEVELS)
def test_the_gold_posterior_matches_the_definition(seed, sources, matched, level):
    pivot, others, pairs = random_batch(seed, sources, matched=matched)
    ours = GoldPosterior(level=level, temperature=2.5)(pivot, others, pairs)
    for mine, slow in zip(ours, reference.gold_posterior(pivot, others, pairs, level, 2.5), strict=True):
        torch.testing.assert_close(mine, slow)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sources", [1, 2, 4])
def test_minimum_cross_entropy_matches_the_definition(seed, sources):
    pivot, others, pairs = random_batch(seed, sources)
    ours = MinimumCrossEntropy()(pivot, others, pairs)
    for mine, slow in zip(ours, reference.minimum_cross_entropy(pivot, others, pairs), strict=True):
        torch.testing.assert_close(mine, slow)


def test_the_random_texts_hold_every_difficulty():
    batches = [random_batch(seed, 4, matched=0.8) for seed in range(8)]
    sources = [source for _, others, _ in batches for source in others]
    assert any((source.prefix < 0).any() for source in sources)
    assert any(4 not in source.example for source in sources)
    assert any(0 < max(source.prefix[source.example == 9].tolist(), default=0) < 29 for source in sources)
    assert any(0 not in pair.pivot and len(pair) for _, _, pairs in batches for pair in pairs)
    assert all(3 < span_likelihoods(*batch, "span")[0].shape[1] < len(batch[0]) for batch in batches)


@every_weighting
def test_there_is_one_float32_weight_for_each_pair_and_a_share_is_between_0_and_1(weighting):
    pivot, others, pairs = random_batch(3, 4)
    weights = weighting(pivot, others, pairs)
    assert [len(w) for w in weights] == [len(p) for p in pairs]
    assert all(w.dtype == torch.float32 and (w >= 0).all() for w in weights)
    if weighting in SHARES:
        assert all((w <= 1).all() for w in weights)


def test_sum_counts_every_source_fully_and_mean_shares_one():
    pivot, others, pairs = random_batch(3, 4)
    assert all((w == 1).all() for w in Sum()(pivot, others, pairs))
    assert all((w == 0.25).all() for w in Mean()(pivot, others, pairs))


def test_position_weights_of_the_sources_at_a_row_sum_to_one():
    pivot, others, pairs = random_batch(3, 4)
    total = _totals(pivot, pairs, GoldPosterior(level="position")(pivot, others, pairs))
    matched = torch.cat([pair.pivot for pair in pairs]).unique()
    torch.testing.assert_close(total[matched], torch.ones(len(matched)))


def _totals(pivot: LogitRows, pairs: Sequence[Pairs], weights: Sequence[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(len(pivot))
    for pair, weight in zip(pairs, weights, strict=True):
        total = total.index_add(0, pair.pivot, weight)
    return total


@pytest.mark.parametrize("level", ["span", "example"])
def test_longer_levels_sum_to_one_where_all_that_take_part_have_a_pair_and_never_exceed_it(level):
    pivot, others, pairs = random_batch(3, 2, examples=[5])
    total = _totals(pivot, pairs, GoldPosterior(level=level)(pivot, others, pairs))
    shared = [n for n in range(len(pivot)) if all(n in pair.pivot for pair in pairs)]
    torch.testing.assert_close(total[shared], torch.ones(len(shared)))
    assert (total <= 1 + 1e-6).all()
    assert (total[[n for n in range(len(pivot)) if n not in shared]] < 0.999).all()


def two_sources() -> tuple[LogitRows, list[LogitRows], list[Pairs]]:
    """One text of 6 bytes. Shared boundaries: 0, 4 and the end, 6."""
    pivot = rows([(0, [0, 2, 4, 6])], [0.0] * 4)
    first = rows([(0, [0, 2, 4, 6])], [-1.0, -2.0, -0.5, -0.1])
    second = rows([(0, [0, 1, 4, 5, 6])], [-0.25, -0.5, -3.0, -1.0, -0.2])
    return pivot, [first, second], [match_prefixes(pivot, first), match_prefixes(pivot, second)]


def share(mine: float, theirs: float) -> float:
    return 1 / (1 + math.exp(theirs - mine))


def test_position_weights_of_a_worked_example():
    first, second = GoldPosterior(level="position")(*two_sources())
    expected = [share(-1.0, -0.25), 1.0, share(-0.5, -3.0), share(-0.1, -0.2)]
    torch.testing.assert_close(first, torch.tensor(expected))
    torch.testing.assert_close(second, 1 - torch.tensor(expected)[[0, 2, 3]])


def test_span_weights_of_a_worked_example():
    first, second = GoldPosterior(level="span")(*two_sources())
    begin, middle, end = share(-3.0, -0.75), share(-0.5, -4.0), share(-0.1, -0.2)
    torch.testing.assert_close(first, torch.tensor([begin, begin, middle, end]))
    torch.testing.assert_close(second, 1 - torch.tensor([begin, middle, end]))


def test_example_weights_of_a_worked_example():
    first, second = GoldPosterior(level="example", temperature=2.0)(*two_sources())
    torch.testing.assert_close(first, torch.full((4,), share(-3.6 / 2, -4.95 / 2)))
    torch.testing.assert_close(second, torch.full((3,), share(-4.95 / 2, -3.6 / 2)))
    first, second = MinimumCrossEntropy()(*two_sources())
    assert (first == 1).all()
    assert (second == 0).all()


def test_the_source_that_stops_early_is_compared_on_what_it_has_read():
    pivot, (first, second), _ = two_sources()
    first = first.select(slice(0, 3))  # reads up to byte 4; the second's rows at 5 and 6 are left out
    pairs = [match_prefixes(pivot, first), match_prefixes(pivot, second)]
    weights = GoldPosterior(level="example")(pivot, [first, second], pairs)[0]
    torch.testing.assert_close(weights, torch.full((3,), share(-3.5, -3.75)))


def test_a_source_without_the_example_takes_no_part_in_it():
    pivot, others, pairs = two_sources()
    absent = rows([(1, [0, 6])], [0.0, 0.0])
    for weighting in SHARES[2:]:
        alone = weighting(pivot, others, pairs)
        *same, none = weighting(pivot, [*others, absent], [*pairs, match_prefixes(pivot, absent)])
        assert len(none) == 0
        assert all(torch.equal(a, b) for a, b in zip(alone, same, strict=True))


def test_of_equally_likely_sources_the_first_counts():
    pivot, (first, _), _ = two_sources()
    pairs = [match_prefixes(pivot, first)] * 3
    weights = MinimumCrossEntropy()(pivot, [first] * 3, pairs)
    assert [float(w.sum()) for w in weights] == [4.0, 0.0, 0.0]


def test_equal_sources_share_equally_and_a_high_temperature_evens_out():
    pivot, others, pairs = two_sources()
    for level in LEVELS:
        same = GoldPosterior(level=level)(pivot, [others[0]] * 2, [pairs[0]] * 2)
        assert all((w == 0.5).all() for w in same)
        even = GoldPosterior(level=level, temperature=1e6)(pivot, others, pairs)
        assert all(((w - 0.5).abs() < 1e-5).logical_or(w == 1).all() for w in even)


@every_weighting
def test_renumbering_the_examples_and_shuffling_the_pairs_change_nothing(weighting):
    pivot, others, pairs = random_batch(11, 3)
    before = weighting(pivot, others, pairs)
    new = torch.tensor([*range(2), 800, 3, 0, 5, 6, 7, 8, 31])  # 2, 4 and 9 become 800, 0 and 31
    renamed = [dataclasses.replace(each, example=new[each.example]) for each in (pivot, *others)]
    orders = [torch.randperm(len(pair), generator=torch.Generator().manual_seed(0)) for pair in pairs]
    shuffled = [Pairs(pair.pivot[order], pair.source[order]) for pair, order in zip(pairs, orders, strict=True)]
    after = weighting(renamed[0], renamed[1:], shuffled)
    for old, now, order in zip(before, after, orders, strict=True):
        torch.testing.assert_close(old[order], now)


@every_weighting
def test_other_examples_in_the_batch_change_nothing(weighting):
    pivot, others, pairs = random_batch(5, 3)
    whole = weighting(pivot, others, pairs)
    alone = pivot.select(pivot.example == 9)
    part = weighting(alone, others, [match_prefixes(alone, other) for other in others])
    for all_weights, pair, weights in zip(whole, pairs, part, strict=True):
        torch.testing.assert_close(all_weights[pivot.example[pair.pivot] == 9], weights)


@every_weighting
def test_no_gradient_flows(weighting):
    pivot, others, pairs = random_batch(5, 3)
    others = [dataclasses.replace(other, gold=other.gold.clone().requires_grad_()) for other in others]
    assert not any(weight.requires_grad for weight in weighting(pivot, others, pairs))


@every_weighting
def test_no_sources_and_no_rows_give_no_weights(weighting):
    nothing = rows([], [])
    assert weighting(nothing, [], []) == []
    pivot, others, _ = random_batch(5, 2)
    for first, rest in [(nothing, others), (pivot, [nothing, nothing]), (nothing, [nothing])]:
        weights = weighting(first, rest, [match_prefixes(first, other) for other in rest])
        assert [len(w) for w in weights] == [0] * len(rest)


@pytest.mark.parametrize("weighting", BY_GOLD, ids=repr)
@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_log_probabilities_that_are_not_finite_are_refused(weighting, bad):
    pivot, others, pairs = two_sources()
    others[1].gold[2] = bad
    with pytest.raises(ValueError, match="1 of 5 rows of source 1 (do not know it|it is infinite).*sum or mean"):
        weighting(pivot, others, pairs)


def test_long_batches_keep_their_precision():
    count = 200_000
    pivot = rows([(0, range(count))], [0.0] * count)
    gold = -1000 * torch.rand(count, generator=torch.Generator().manual_seed(0))
    other = rows([(0, range(count))], gold + 0.125)
    source = rows([(0, range(count))], gold)
    same = Pairs(torch.arange(count), torch.arange(count))
    spans, places = (
        GoldPosterior(level=level)(pivot, [source, other], [same, same])[0] for level in ("span", "position")
    )
    torch.testing.assert_close(spans, places, atol=1e-6, rtol=0)


def test_every_kind_is_read_from_its_name_and_checked():
    assert len(WEIGHTINGS) == 12
    assert {type(weighting) for weighting in EXAMPLES} == set(WEIGHTINGS)
    for weighting in EXAMPLES:
        assert TypeAdapter(AnyWeighting).validate_python(weighting.model_dump()) == weighting
    with pytest.raises(ValidationError, match="greater than 0"):
        GoldPosterior(temperature=0)
    with pytest.raises(ValidationError, match="Extra inputs"):
        MinimumCrossEntropy(level="span")


def test_what_a_weighting_reads_is_declared():
    pivot, others, pairs = two_sources()
    blind = [dataclasses.replace(other, gold=torch.full_like(other.gold, torch.nan)) for other in others]
    for weighting in EXAMPLES:
        if "gold" in weighting.required_source_fields:
            with pytest.raises(ValueError, match="do not know it"):
                weighting(pivot, blind, pairs)
        else:
            assert all(map(torch.equal, weighting(pivot, blind, pairs), weighting(pivot, others, pairs)))


@pytest.mark.parametrize("level", ["span", "example"])
def test_the_source_that_differs_most_from_the_pivot_counts(level):
    """Bytes 0-4: pivot -2, sources -3 and -0.75. 4-6: pivot -1, sources -0.5 and -4. End: -0.5, -0.1, -0.2."""
    pivot, others, pairs = two_sources()
    pivot = dataclasses.replace(pivot, gold=torch.tensor([-1.5, -0.5, -1.0, -0.5]))
    first, second = MaxMargin(level=level)(pivot, others, pairs)
    if level == "span":  # |-3+2| < |-0.75+2|; |-0.5+1| < |-4+1|; |-0.1+0.5| > |-0.2+0.5|
        assert first.tolist() == [0.0, 0.0, 0.0, 1.0]
        assert second.tolist() == [1.0, 1.0, 0.0]
    else:  # the pivot -3.5, the sources -3.6 and -4.95
        assert first.tolist() == [0.0] * 4
        assert second.tolist() == [1.0] * 3


def test_a_pivot_without_numbers_cannot_be_differed_from():
    pivot, others, pairs = two_sources()
    silent = dataclasses.replace(pivot, gold=torch.full_like(pivot.gold, torch.nan))
    with pytest.raises(ValueError, match="max_margin compares sources with the pivot, and 4 of 4 rows"):
        MaxMargin()(silent, others, pairs)
    assert MaxMargin().required_pivot_fields == {"gold"}
    assert Product(factors=[Sum(), MaxMargin()]).required_pivot_fields == {"gold"}
    assert not Product(factors=[Sum(), TokenScaled()]).required_pivot_fields


def test_a_product_multiplies_and_needs_what_its_factors_need():
    pivot, others, pairs = random_batch(3, 3)
    factors = [GoldPosterior(), TokenScaled()]
    one, other = (factor(pivot, others, pairs) for factor in factors)
    both = Product(factors=factors)(pivot, others, pairs)
    for a, b, c in zip(one, other, both, strict=True):
        torch.testing.assert_close(a * b, c)
    assert Product(factors=[Sum(), PowerSum(gamma=0.5)]).required_top_k is None
    assert Product(factors=[Sum(), TokenScaled()]).required_source_fields == {"gold"}


@every_weighting
def test_sources_that_all_answered_rightly_are_weighed_as_if_nobody_had_been_asked(weighting):
    pivot, others, pairs = random_batch(3, 4)
    alike = [ExampleInfo("d", str(number), eligibility=(1.0,) * 4) for number in range(10)]
    weights, before = weighting.weigh(pivot, others, pairs, alike), weighting(pivot, others, pairs)
    share = 0.25 if weighting == Eligibility() else 1
    for weight, other in zip(weights, before, strict=True):
        torch.testing.assert_close(weight, other * share)
        assert weight.dtype == torch.float32
