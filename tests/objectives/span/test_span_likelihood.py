"""The divergence of two answers against its definition, and known cases."""

from __future__ import annotations

import math

import pytest
import torch

from fusion.objectives import ForwardKL, SpanLikelihood
from fusion.objectives.span.span_likelihood import two_outcomes
from tests.helpers.rows import as_mapped, query, rows_of


@pytest.mark.parametrize("temperature", [1.0, 7.0])
def test_the_value_is_the_kl_of_this_text_against_any_other(temperature):
    pivot, source = -torch.rand(2, 50, dtype=torch.float64) * 9
    known = []
    for mine, theirs in zip(pivot.tolist(), source.tolist(), strict=True):
        p, q = math.exp(theirs / temperature), math.exp(mine / temperature)
        known.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    ours = SpanLikelihood(temperature=temperature)(pivot, source)
    torch.testing.assert_close(ours, torch.tensor(known, dtype=torch.float64))


def test_it_is_the_forward_kl_of_rows_that_keep_the_text_alone():
    logits, theirs = torch.randn(2, 9, 20, dtype=torch.float64)
    source = rows_of(theirs, 1, theirs.argmax(-1))
    pivot = query(logits, source.ids, source)
    torch.testing.assert_close(SpanLikelihood()(pivot.gold, source.gold), ForwardKL()(pivot, as_mapped(source)))


def test_it_is_never_negative_and_zero_only_at_equality():
    source = -torch.rand(200, dtype=torch.float64) * 20
    pivot = source + torch.randn(200, dtype=torch.float64)
    values = SpanLikelihood()(pivot.clamp(max=-1e-6), source)
    assert (values > 0).all()
    assert SpanLikelihood()(source, source).abs().max() == 0


@pytest.mark.parametrize("log_p", [-1e-9, -1e-3, -1.0, -80.0, -3000.0])
def test_certain_and_impossible_texts_have_finite_values_and_gradients(log_p):
    pivot = torch.tensor([0.0, -1e-8, -1.0, -90.0, -5000.0], requires_grad=True)
    values = two_outcomes(torch.full((5,), log_p), pivot)
    values.sum().backward()
    assert values.isfinite().all()
    assert pivot.grad.isfinite().all()
