"""Weights of positions: the definitions, what each sums to, and what does not change them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from fusion.core.rows import Pairs
from fusion.core.tail import log_power_sum
from fusion.weighting import PowerSum, TokenScaled, Uncertainty
from fusion.weighting.positions import token_scaled
from tests.helpers.rows import random_rows, rows_of

EXAMPLE = torch.tensor([3, 3, 3, 0, 0, 7])


def batch(N=12, examples=3, k=5, V=20):
    pivot, source = (random_rows(N, k, V, torch.float64, seed=s, examples=examples) for s in (1, 2))
    same = torch.arange(N)
    return pivot, [source], [Pairs(same, same)]


@pytest.mark.parametrize("temperature", [0.5, 10.0])
def test_token_weights_are_a_softmax_over_the_tokens_of_an_example(temperature):
    cost = torch.rand(6, dtype=torch.float64) * 20
    ours = token_scaled(cost, EXAMPLE, temperature)
    for e in (0, 3, 7):
        inside = e == EXAMPLE
        torch.testing.assert_close(ours[inside], (cost[inside] / temperature).softmax(0))
        assert ours[inside].sum().item() == pytest.approx(1)


def test_a_constant_on_the_costs_changes_no_token_weight_and_huge_costs_are_no_trouble():
    cost = torch.rand(6, dtype=torch.float64) * 20
    torch.testing.assert_close(token_scaled(cost + 1e4, EXAMPLE, 0.1), token_scaled(cost, EXAMPLE, 0.1))


def test_a_high_temperature_and_equal_costs_make_token_weights_even():
    even = torch.tensor([1 / 3] * 3 + [1 / 2] * 2 + [1.0], dtype=torch.float64)
    torch.testing.assert_close(token_scaled(torch.rand(6).double() * 20, EXAMPLE, 1e9), even)
    torch.testing.assert_close(token_scaled(torch.full((6,), 4.0).double(), EXAMPLE, 0.1), even)


@pytest.mark.parametrize("weighting", [TokenScaled(temperature=2.0), PowerSum(gamma=0.5, tail="single")], ids=repr)
def test_the_mean_over_an_examples_pairs_is_one_and_unsure_positions_count_more(weighting):
    pivot, sources, pairs = batch()
    (weight,) = weighting(pivot, sources, pairs)
    for e in range(3):
        assert weight[pivot.example == e].mean().item() == pytest.approx(1, rel=1e-6)
    sure = sources[0].gold if weighting.kind == "token_scaled" else sources[0].logprobs[:, 0]
    inside = pivot.example == 1
    assert weight[inside][sure[inside].argmax()] < 1 < weight[inside][sure[inside].argmin()]


def test_rows_without_a_pair_take_no_part():
    pivot, sources, _ = batch()
    some = torch.tensor([0, 2, 3, 8])
    cost = dataclasses.replace(sources[0], gold=sources[0].gold.clone())
    cost.gold[1] = -500.0
    for weighting in (TokenScaled(), PowerSum(gamma=0.5, tail="single")):
        (weight,) = weighting(pivot, [cost], [Pairs(some, some)])
        (known,) = weighting(pivot, sources, [Pairs(some, some)])
        torch.testing.assert_close(weight, known)


def test_the_gradient_of_a_weighted_soft_cross_entropy_is_weight_times_difference():
    """Source side of TSLD: d/ds of w * CE(P, softmax(s)) is w (p - P), and w is a constant."""
    pivot, sources, pairs = batch()
    (weight,) = TokenScaled()(pivot, sources, pairs)
    s, P = torch.randn(12, 20, dtype=torch.float64, requires_grad=True), torch.randn(12, 20).double().softmax(-1)
    (gradient,) = torch.autograd.grad((weight * -(P * s.log_softmax(-1)).sum(-1)).sum(), s)
    torch.testing.assert_close(gradient, weight[:, None].double() * (s.softmax(-1) - P).detach())


@pytest.mark.parametrize("gamma", [0.2, 0.7, 1.0])
def test_power_sums_of_whole_rows_are_exact_and_lie_between_one_and_their_greatest(gamma):
    V, logits = 20, torch.randn(50, 20, dtype=torch.float64) * 4
    rows = rows_of(logits, V)
    exact = log_power_sum(rows.logprobs, gamma, "exact").exp()
    torch.testing.assert_close(exact, (logits.softmax(-1) ** gamma).sum(-1))
    assert (exact >= 1 - 1e-12).all()
    assert (exact <= V ** (1 - gamma) + 1e-9).all()
    even, certain = torch.full((1, V), -math.log(V)).double(), torch.full((1, V), -torch.inf).double()
    certain[0, 0] = 0
    assert log_power_sum(even, gamma, "exact").exp().item() == pytest.approx(V ** (1 - gamma))
    assert log_power_sum(certain, gamma, "exact").exp().item() == pytest.approx(1)


@pytest.mark.parametrize("gamma", [0.2, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("k", [1, 5, 19])
def test_what_is_assumed_of_the_rest_brackets_the_exact_power_sum(gamma, k):
    # spread by 2: were the mass outside the entries below rounding, a small power of it would not be
    logits = torch.randn(50, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    exact = log_power_sum(rows_of(logits, 20).logprobs, gamma, "exact")
    few = rows_of(logits, k).logprobs
    single, even = log_power_sum(few, gamma, "single"), log_power_sum(few, gamma, "even", 20)
    low, high = (single, even) if gamma <= 1 else (even, single)
    assert (low <= exact + 1e-9).all()
    assert (exact <= high + 1e-9).all()


def test_at_gamma_one_every_position_counts_the_same():
    (weight,) = PowerSum(gamma=1.0, tail="single")(*batch())
    torch.testing.assert_close(weight, torch.ones(12))
    assert PowerSum(gamma=0.5).required_top_k is None
    assert PowerSum(gamma=0.5, tail="single").required_top_k == 0


def test_uncertainty_is_one_less_the_greatest_probability_of_the_row_that_is_paired():
    pivot, sources, _ = batch()
    pairs = [Pairs(torch.tensor([1, 4, 5]), torch.tensor([0, 7, 2]))]
    (weight,) = Uncertainty()(pivot, sources, pairs)
    expected = 1 - sources[0].logprobs.exp().amax(-1)[[0, 7, 2]]
    torch.testing.assert_close(weight, expected.float())
    assert weight.dtype == torch.float32


def test_uncertainty_of_a_nearly_certain_source_is_not_lost_and_never_below_zero():
    pivot, sources, pairs = batch(N=3, examples=1)
    logprobs = torch.tensor([[-1e-9, -20.0], [1e-7, -20.0], [-torch.inf] * 2])  # float32 rows may be a hair above 1
    sure = dataclasses.replace(sources[0], logprobs=logprobs, ids=torch.tensor([[3, 4], [0, 1], [-1, -1]]))
    (weight,) = Uncertainty()(pivot, [sure], pairs)
    torch.testing.assert_close(weight, torch.tensor([1e-9, 0.0, 1.0]), rtol=1e-5, atol=0)


def test_uncertainty_needs_an_entry_and_the_largest():
    assert (Uncertainty().required_top_k, Uncertainty().exact_entries) == (1, True)
