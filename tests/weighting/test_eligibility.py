"""Only sources that answered rightly may teach: what each then counts, alone and as the prior of others, by definition."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from fusion.core.example import ExampleInfo
from fusion.core.rows import Pairs
from fusion.weighting import (
    Eligibility,
    GoldPosterior,
    Learned,
    MaxMargin,
    Mean,
    MinimumCrossEntropy,
    Product,
    RandomSource,
    Sum,
    TokenScaled,
    Uncertainty,
    Weighting,
)
from tests.weighting.test_likelihood import LEVELS, random_batch

SHARING = [
    Mean(),
    *(GoldPosterior(level=level, temperature=1.7) for level in LEVELS),
    MinimumCrossEntropy(),
    MaxMargin(),
]
EVERY = [(0.5, 0.25, 1.0)] * 10
"""Shares of three sources in each example of `random_batch`, whose numbers go up to 9."""


def infos(shares):
    return [ExampleInfo("d", f"example {n}", eligibility=each) for n, each in enumerate(shares)]


def with_eligibility(weighting: Weighting, **settings) -> Product:
    return Product(factors=[weighting, Eligibility(**settings)])


def totals(pivot, pairs, weights):
    total = torch.zeros(len(pivot))
    for pair, weight in zip(pairs, weights, strict=True):
        total = total.index_add(0, pair.pivot, weight)
    return total


def test_a_source_counts_by_its_share_of_right_answers_over_the_sum_of_all():
    found = Eligibility().source_priors(infos([(0.5, 0.25, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, 1.0)]), 3)
    expected = torch.tensor([[2 / 3, 0, 0], [1 / 3, 0, 0.5], [0, 0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    otherwise = Eligibility(otherwise="all").source_priors(infos([(0.0, 0.0, 0.0), (0.0, 0.5, 0.0)]), 3)
    torch.testing.assert_close(otherwise, torch.tensor([[1 / 3, 0], [1 / 3, 1], [1 / 3, 0]], dtype=torch.float64))
    assert Eligibility().source_priors([], 3).shape == (3, 0)


@pytest.mark.parametrize("weighting", [Eligibility(), with_eligibility(Sum()), with_eligibility(Mean())], ids=repr)
def test_alone_it_gives_all_pairs_of_a_source_in_an_example_its_share(weighting):
    pivot, others, pairs = random_batch(2, 3)
    weights = weighting.weigh(pivot, others, pairs, infos([(0.5, 0.25, 1.0), (1.0, 0.0, 0.0)] * 5))
    for number, (weight, pair) in enumerate(zip(weights, pairs, strict=True)):
        even = pivot.example[pair.pivot] % 2 == 0
        expected = torch.where(even, (0.5, 0.25, 1.0)[number] / 1.75, (1.0, 0.0, 0.0)[number])
        torch.testing.assert_close(weight, expected)
        assert weight.dtype == torch.float32


@pytest.mark.parametrize("level", LEVELS)
def test_with_the_gold_posterior_it_is_the_prior_of_bayes_rule(level):
    pivot, others, pairs = random_batch(28, 3, examples=[4])
    likelihood = GoldPosterior(level=level)(pivot, others, pairs)
    weights = with_eligibility(GoldPosterior(level=level)).weigh(pivot, others, pairs, infos(EVERY))
    alike = with_eligibility(GoldPosterior(level=level)).weigh(pivot, others, pairs, infos([(0.5, 0.5, 0.5)] * 10))
    by_row = [
        dict(zip(pair.pivot.tolist(), each.tolist(), strict=True)) for pair, each in zip(pairs, likelihood, strict=True)
    ]
    shared = [n for n in range(len(pivot)) if all(n in rows for rows in by_row)]
    assert len(shared) > 2
    for number, (weight, pair) in enumerate(zip(weights, pairs, strict=True)):
        for row, found in zip(pair.pivot.tolist(), weight.tolist(), strict=True):
            if row in shared:
                joint = [rows[row] * share for rows, share in zip(by_row, EVERY[0], strict=True)]
                assert found == pytest.approx(joint[number] / sum(joint), rel=1e-5)
    torch.testing.assert_close(totals(pivot, pairs, weights)[shared], torch.ones(len(shared)))
    assert all(map(torch.allclose, alike, likelihood))  # equal priors are none


@pytest.mark.parametrize("weighting", SHARING, ids=repr)
@pytest.mark.parametrize("seed", [1, 4])
def test_others_are_weighed_as_if_a_source_that_answered_wrongly_were_not_there(weighting, seed):
    pivot, others, pairs = random_batch(seed, 3, matched=0.8)
    *some, none = with_eligibility(weighting).weigh(pivot, others, pairs, infos([(0.5, 0.25, 0.0)] * 10))
    assert (none == 0).all()
    assert len(none)
    without = with_eligibility(weighting).weigh(pivot, others[:2], pairs[:2], infos([(0.5, 0.25)] * 10))
    for weight, other in zip(some, without, strict=True):
        torch.testing.assert_close(weight, other)


@pytest.mark.parametrize("weighting", SHARING, ids=repr)
def test_of_one_that_answered_rightly_all_rows_count_fully_whatever_it_finds_likely(weighting):
    pivot, others, pairs = random_batch(3, 3, matched=0.8)
    first, *wrong = with_eligibility(weighting).weigh(pivot, others, pairs, infos([(0.25, 0.0, 0.0)] * 10))
    torch.testing.assert_close(first, torch.ones(len(first)))
    assert all((weight == 0).all() for weight in wrong)


@pytest.mark.parametrize("weighting", [*SHARING, Sum(), TokenScaled(), Uncertainty()], ids=repr)
def test_where_nobody_answered_rightly_nobody_counts_or_all_do_as_they_would_without_a_check(weighting):
    pivot, others, pairs = random_batch(3, 3)
    nobody = infos([(0.0, 0.0, 0.0)] * 10)
    assert all((weight == 0).all() for weight in with_eligibility(weighting).weigh(pivot, others, pairs, nobody))
    found = with_eligibility(weighting, otherwise="all").weigh(pivot, others, pairs, nobody)
    alone = weighting(pivot, others, pairs)
    alike = [weight / (1 if weighting.takes_priors else 3) for weight in alone]
    for weight, expected in zip(found, alike, strict=True):
        torch.testing.assert_close(weight, expected)


def test_weights_of_positions_are_multiplied_and_the_likelihood_takes_the_prior_wherever_it_stands():
    pivot, others, pairs = random_batch(3, 3)
    posterior, positions = GoldPosterior(level="example"), TokenScaled()
    some = infos([(0.5, 0.25, 0.0)] * 10)
    expected = with_eligibility(posterior).weigh(pivot, others, pairs, some)
    scaled = positions(pivot, others, pairs)
    for factors in ([Eligibility(), positions, posterior], [posterior, Eligibility(), positions]):
        weights = Product(factors=factors).weigh(pivot, others, pairs, some)
        for weight, share, position in zip(weights, expected, scaled, strict=True):
            torch.testing.assert_close(weight, share * position)


@pytest.mark.parametrize(
    "weighting", [Eligibility(), with_eligibility(GoldPosterior()), with_eligibility(Mean())], ids=repr
)
def test_the_order_of_the_sources_changes_no_weight(weighting):
    pivot, others, pairs = random_batch(8, 3)
    weights = weighting.weigh(pivot, others, pairs, infos(EVERY))
    turned = weighting.weigh(pivot, others[::-1], pairs[::-1], infos([each[::-1] for each in EVERY]))
    for weight, other in zip(weights, turned[::-1], strict=True):
        torch.testing.assert_close(weight, other)


def test_an_example_of_which_nothing_is_known_is_refused_by_its_id():
    pivot, others, pairs = random_batch(8, 3)
    unknown = [*infos(EVERY)[:9], ExampleInfo("d", "the last")]
    with pytest.raises(
        ValueError, match=r"answered the prompt of example the last rightly.*data.responses best_source"
    ):
        Eligibility().weigh(pivot, others, pairs, unknown)
    assert with_eligibility(GoldPosterior()).weigh(pivot, [], [], unknown) == []  # plain fine-tuning asks nobody
    empty = [Pairs(pair.pivot[:0], pair.source[:0]) for pair in pairs]
    assert [len(weight) for weight in Eligibility().weigh(pivot, others, empty, infos(EVERY))] == [0, 0, 0]


def test_only_eligibility_asks_who_answered_rightly():
    assert Eligibility().required_eligibility
    assert with_eligibility(Sum()).required_eligibility
    assert not any(weighting.required_eligibility for weighting in (Sum(), Product(factors=[Mean(), GoldPosterior()])))


@pytest.mark.parametrize(("factors", "message"), [
    ([Eligibility(), Eligibility()], "has eligibility twice"),
    ([Eligibility(), RandomSource()], "has eligibility and random_source, .* Use gold_posterior, .* instead of random_source"),
    ([Learned(), Sum(), Eligibility()], "has eligibility and learned, .* instead of learned"),
])  # fmt: skip
def test_what_would_lose_weight_to_nobody_is_refused(factors, message):
    with pytest.raises(ValidationError, match=message):
        Product(factors=factors)
