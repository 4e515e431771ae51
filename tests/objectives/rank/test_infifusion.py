"""InfiFusion's pair term against a slow reference, and what the standardisation makes it blind to."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import GLD, ExampleObjective, InfiFusion
from fusion.objectives.rank.infifusion import rank_distance, standardise
from tests.helpers import reference
from tests.helpers.rows import random_rows, rows_of


@pytest.mark.parametrize(("M", "k", "V"), [(5, 4, 11), (1, 3, 3), (123, 16, 257), (4, 4, 4)])
@pytest.mark.parametrize("post", ["none", "softmax"])
@pytest.mark.parametrize("unbiased", [True, False])
def test_infifusion_matches_the_definition(M, k, V, post, unbiased):
    pivot, source = random_rows(M, k, V, torch.float64, seed=1), random_rows(M, V, V, torch.float64, seed=2)
    ours = InfiFusion(top_k=k, post=post, unbiased=unbiased)(pivot, source)
    torch.testing.assert_close(ours, reference.infifusion(pivot, source, k, post, unbiased))


@pytest.mark.parametrize("post", ["none", "softmax"])
def test_without_the_zscore_log_probabilities_are_compared_as_they_are(post):
    pivot, source = random_rows(9, 4, 11, torch.float64, seed=1), random_rows(9, 11, 11, torch.float64, seed=2)
    mine, theirs = pivot.logprobs[:, :4], source.logprobs[:, :4]
    if post == "softmax":
        mine, theirs = mine.softmax(-1), theirs.softmax(-1)
    expected = torch.stack(
        [sum(abs(a - b) for a, b in zip(*row, strict=True)) for row in zip(mine, theirs, strict=True)]
    )
    torch.testing.assert_close(InfiFusion(top_k=4, zscore=False, post=post)(pivot, source), expected)
    colder = rows_of(2 * torch.randn(9, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(3)), 4)
    flat = dataclasses.replace(colder, logprobs=(colder.logprobs / 2).log_softmax(-1))
    assert (InfiFusion(top_k=4, zscore=False)(colder, flat) > 0.1).all()


def test_a_worked_example():
    pivot, source = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.0]])
    # standardised to (1, 0, -1) and to (2, -1, -1) / sqrt(3)
    known = abs(1 - 2 / math.sqrt(3)) + 1 / math.sqrt(3) + abs(-1 + 1 / math.sqrt(3))
    assert rank_distance(standardise(pivot), standardise(source)).item() == pytest.approx(known, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(2.0, 0.0), (0.3, -7.0), (1.0, 100.0)])
def test_a_positive_factor_and_a_constant_on_the_logits_change_nothing(a, b):
    logits = torch.randn(7, 19, dtype=torch.float64)
    pivot, source = rows_of(logits, 5), random_rows(7, 5, 23, torch.float64)
    objective = InfiFusion(top_k=5, eps=1e-15)  # the default eps bends the invariance by its share of the spread
    same = objective(rows_of(a * logits + b, 5), pivot)
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-12, rtol=0)
    torch.testing.assert_close(objective(rows_of(a * logits + b, 5), source), objective(pivot, source))


def test_renaming_the_tokens_of_either_model_changes_nothing():
    logits, source = torch.randn(7, 19, dtype=torch.float64), random_rows(7, 5, 23, torch.float64)
    renamed = rows_of(logits[:, torch.randperm(19)], 5)
    torch.testing.assert_close(InfiFusion(top_k=5)(renamed, source), InfiFusion(top_k=5)(rows_of(logits, 5), source))


@pytest.mark.parametrize("k", [3, 5, 10, 50])
def test_the_value_never_exceeds_its_bound_and_comes_within_a_third_of_it(k):
    bound = math.sqrt(2 * k * (k - 1))
    pivot, source = random_rows(500, k, 200, torch.float64, seed=1), random_rows(500, k, 99, torch.float64, seed=2)
    values = InfiFusion(top_k=k)(pivot, source)
    assert (values >= 0).all()
    assert (values <= bound).all()
    peaked, flat = torch.zeros(1, k).double(), torch.ones(1, k).double()
    peaked[0, 0], flat[0, -1] = 1, 0
    assert bound / 3 < rank_distance(standardise(peaked), standardise(flat)).item() <= bound


def test_equal_logits_give_a_finite_value_and_gradient():
    logits = torch.zeros(2, 9, requires_grad=True)
    values = InfiFusion(top_k=4)(rows_of(logits, 4), random_rows(2, 4, 9))
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad.isfinite().all()


def test_two_values_would_teach_nothing():
    values = torch.randn(6, 2, dtype=torch.float64).sort(descending=True).values.requires_grad_()
    rank_distance(standardise(values, 1e-15), standardise(torch.tensor([[5.0, 1.0]] * 6).double())).sum().backward()
    assert values.grad.abs().max() < 1e-12


@pytest.mark.parametrize("k", [0, 1, 2])
def test_fewer_than_three_entries_are_refused_with_the_reason(k):
    with pytest.raises(ValidationError, match=f"top_k >= 3, got {k}.*constant and its gradient zero"):
        InfiFusion(top_k=k)


@pytest.mark.parametrize("objective", [InfiFusion(top_k=4), GLD(top_k=4)], ids=["infifusion", "gld"])
def test_rows_with_too_few_or_empty_entries_are_refused(objective):
    pivot, source = random_rows(3, 4, 9), random_rows(3, 4, 9)
    more = (1,) if isinstance(objective, ExampleObjective) else ()
    with pytest.raises(ValueError, match="keep 3 entries each, 4 were asked for"):
        objective(pivot, source.top(3), *more)
    source.ids[1, 3], source.logprobs[1, 3] = -1, -torch.inf
    with pytest.raises(ValueError, match="1 of 3 source rows have empty entries among their first 4.*lower top_k"):
        objective(pivot, source, *more)
