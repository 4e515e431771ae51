"""Ids drawn from rows of logits, against float64 distributions: frequencies, counts, estimates, and what changes none of it."""

import dataclasses
import math

import pytest
import torch
from scipy import stats

from fusion.core.rows import Positions
from fusion.models.head import Head
from fusion.models.head.sampling import sample_ids

UGLY = [(5, 1), (5, 63), (4, 64), (3, 65), (2, 4096), (3, 4097), (2, 9001)]


def logits_of(N, V, dtype=torch.float64, seed=0):
    logits = torch.randn(N, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    if V > 2:
        logits[:, V // 2] = -torch.inf  # a token that cannot be
    return logits.to(dtype)


def dense(found, V):
    """Estimates as whole rows."""
    at = found.ids.clamp(min=0)
    return torch.zeros(len(at), V, dtype=torch.float64).scatter_add(1, at, found.logprobs.double().exp())


@pytest.mark.parametrize(("N", "V"), UGLY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.8, 1.0, 1.2])
def test_even_numbers_give_each_id_its_share_of_the_distribution(N, V, dtype, tau):
    """A grid of M numbers hits an interval of length q between M q - 1 and M q + 1 times."""
    logits, M = logits_of(N, V, dtype), 2003
    q = (tau * logits.double()).softmax(-1)
    grid = ((torch.arange(M, dtype=torch.float64) + 0.5) / M).expand(N, M)
    found = sample_ids(logits, grid[:, torch.randperm(M)], tau)
    counts = torch.zeros(N, V, dtype=torch.long).scatter_add(1, found.ids.clamp(min=0), found.counts)
    assert (counts.sum(-1) == M).all()
    assert ((counts - M * q).abs() <= 1 + 1e-3).all()
    assert counts[q == 0].sum() == 0


@pytest.mark.parametrize(("N", "V"), UGLY)
def test_an_id_is_the_first_at_which_the_cumulative_distribution_passes_the_number(N, V):
    logits = logits_of(N, V)
    uniform = torch.rand(N, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.searchsorted(logits.softmax(-1).cumsum(-1), uniform, right=True)
    assert torch.equal(sample_ids(logits, uniform).ids, wanted)


def test_at_tau_one_estimates_are_counts_over_draws_and_add_up_to_one():
    found = sample_ids(logits_of(7, 300), torch.rand(7, 50))
    assert torch.equal(found.counts.sum(-1), torch.full((7,), 50))
    there = found.counts > 0
    torch.testing.assert_close(found.logprobs[there], (found.counts[there] / 50).double().log())
    torch.testing.assert_close(found.logprobs.exp().sum(-1), torch.ones(7, dtype=torch.float64))
    assert torch.equal(there, found.ids >= 0)
    assert torch.equal(there, ~found.logprobs.isneginf())


@pytest.mark.parametrize("tau", [0.8, 1.2])
def test_at_another_tau_each_count_is_worth_p_over_q(tau):
    logits = logits_of(7, 300)
    found = sample_ids(logits, torch.rand(7, 50), tau)
    there = found.counts > 0
    p, q = logits.log_softmax(-1), (tau * logits).log_softmax(-1)
    worth = (p - q).gather(1, found.ids.clamp(min=0))[there]
    torch.testing.assert_close(found.logprobs[there], (found.counts[there] / 50).log() + worth)
    assert (found.logprobs[:, :-1] >= found.logprobs[:, 1:]).all()


@pytest.mark.parametrize("tau", [0.7, 1.0, 1.3])
def test_estimates_are_right_on_average_and_vary_as_the_formula_says(tau):
    """Mean p; variance (p^2 / q - p^2) / D, which is p (1 - p) / D at tau 1. Within four standard errors."""
    M, D, V = 40_000, 5, 6
    logits = logits_of(1, V)
    p, q = logits.softmax(-1)[0], (tau * logits).softmax(-1)[0]
    estimate = dense(sample_ids(logits.expand(M, V), torch.rand(M, D, dtype=torch.float64), tau), V)
    possible = q > 0
    variance = torch.where(possible, (p**2 / q.clamp(min=1e-300) - p**2) / D, 0)
    assert ((estimate.mean(0) - p).abs() <= 4 * (variance / M).sqrt() + 1e-12).all()
    often = q > 0.01  # a rare id's variance is made by its few draws
    torch.testing.assert_close(estimate.var(0)[often], variance[often], rtol=0.15, atol=1e-5)


def test_self_normalised_estimates_would_be_biased():
    """Why estimates at tau other than 1 are not divided by their sum."""
    logits, M = torch.tensor([[2.0, 0.0, -2.0]], dtype=torch.float64), 40_000
    estimate = dense(sample_ids(logits.expand(M, 3), torch.rand(M, 3, dtype=torch.float64), 0.3), 3)
    normalised, p = (estimate / estimate.sum(-1, keepdim=True)).mean(0), logits.softmax(-1)[0]
    assert (normalised - p).abs().max() > 5 * (estimate.mean(0) - p).abs().max()


def test_as_many_different_ids_are_drawn_as_expected():
    M, D, V = 4000, 20, 50
    logits = logits_of(1, V)
    expected = (1 - (1 - logits.softmax(-1)) ** D).sum()
    unique = (sample_ids(logits.expand(M, V), torch.rand(M, D)).counts > 0).sum(-1).double()
    assert abs(unique.mean() - expected) < 4 * unique.std() / math.sqrt(M)


def test_draws_follow_the_distribution():
    logits = torch.randn(1, 20, dtype=torch.float64)
    found = sample_ids(logits, torch.rand(1, 5000, dtype=torch.float64))
    counts = torch.zeros(20).scatter_add(0, found.ids[0].clamp(min=0), found.counts[0].float())
    assert stats.chisquare(counts.double(), logits.softmax(-1)[0] * 5000).pvalue > 1e-3


def test_the_order_of_the_numbers_and_a_level_on_the_logits_change_nothing():
    logits, uniform = logits_of(4, 500), torch.rand(4, 30, dtype=torch.float64)
    one, other = sample_ids(logits, uniform), sample_ids(logits + 7, uniform.flip(-1))
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.counts, other.counts)


@pytest.mark.parametrize("spread", [False, True])
def test_the_head_draws_the_same_rows_in_chunks_of_any_size(spread):
    model = torch.nn.Linear(8, 130, bias=False)
    head, hidden = Head(model, 128, scale=2.0), torch.randn(11, 8)
    head = head.for_frozen_model() if spread else head
    about = Positions(token=torch.arange(11), prefix=torch.arange(11), example=torch.zeros(11, dtype=torch.long))
    uniform = torch.rand(11, 20)
    whole = head.sampled_rows(hidden, about, uniform, 1.0)
    chunked = dataclasses.replace(head, chunk=3).sampled_rows(hidden, about, uniform, 1.0)
    exact = head.rows(hidden, about, 128)[0]
    assert whole.ids.max() < 128
    assert torch.equal(whole.ids, chunked.ids)
    assert torch.equal(whole.sample_counts, chunked.sample_counts)
    for name in ("gold", "mean", "std"):
        torch.testing.assert_close(getattr(whole, name), getattr(exact, name))
