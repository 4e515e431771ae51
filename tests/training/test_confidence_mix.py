"""Soft labels where the source is unsure, hard ones where it is sure: the gradient is that of the mixed target."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusion.alignment import align_spans
from fusion.core.example import ExampleInfo
from fusion.core.rows import Pairs
from fusion.models.head import Head
from fusion.objectives import BatchTargets, CrossEntropy, ForwardKL, SourceTargets
from fusion.training.loss import Loss
from fusion.weighting import Eligibility, GoldPosterior, Product, Uncertainty
from tests.helpers.rows import as_mapped, rows_of

N, D, V = 9, 4, 7
MIX = [CrossEntropy(use_remaining_weight=True), ForwardKL()]


@pytest.fixture
def head():
    torch.manual_seed(0)
    return Head(nn.Linear(D, V, dtype=torch.float64), V)


def source_logits(seed):
    """Rows of every confidence, the last nearly certain."""
    spread = torch.linspace(0.1, 6, N, dtype=torch.float64)[:, None]
    return torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * spread


def gradient_of_the_loss(head, hidden, token, sources, weighting, matched, shares=None):
    positions, none = rows_of(torch.zeros(N, V).double(), 0, token), slice(0, 0)
    rows = [rows_of(each, V, token) for each in sources]
    pairs = [Pairs(matched, matched)] * len(rows)
    infos = [ExampleInfo("d", "x", eligibility=shares)]
    targets = {
        f"s{number}": SourceTargets(
            its_rows, its_pairs, weight, torch.arange(len(matched)), as_mapped(its_rows.select(matched)),
            align_spans(positions, its_rows, its_pairs), its_rows.select(none),
        )
        for number, (its_rows, its_pairs, weight) in enumerate(
            zip(rows, pairs, weighting.weigh(positions, rows, pairs, infos), strict=True)
        )
    }  # fmt: skip
    batch = BatchTargets(torch.arange(N), positions, targets, infos)
    loss = Loss(head, MIX, nn.ModuleDict())
    hidden = hidden.clone().requires_grad_()
    terms = loss(hidden[None], batch, loss.counts(batch))
    sum((term.weight * term.mean for term in terms), torch.zeros(()).double()).backward()
    return hidden.grad


def gradient_of_cross_entropy(head, hidden, target):
    """Of the mean over rows of the cross-entropy against a distribution [N, V]."""
    hidden = hidden.clone().requires_grad_()
    (-(target * head.logits(hidden).log_softmax(-1)).sum(-1)).mean().backward()
    return hidden.grad


def batch_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, D, dtype=torch.float64, generator=generator)
    return hidden, torch.randint(V, (N,), generator=generator)


def test_the_gradient_is_that_of_one_cross_entropy_against_the_mixed_target(head):
    hidden, token = batch_of()
    p = source_logits(1).softmax(-1)
    w = 1 - p.amax(-1, keepdim=True)
    assert w.min() < 0.05 < 0.8 < w.max()
    target = (1 - w) * nn.functional.one_hot(token, V) + w * p
    found = gradient_of_the_loss(head, hidden, token, [source_logits(1)], Uncertainty(), torch.arange(N))
    torch.testing.assert_close(found, gradient_of_cross_entropy(head, hidden, target), rtol=1e-6, atol=1e-9)
    for alone in (nn.functional.one_hot(token, V).double(), p):
        assert (found - gradient_of_cross_entropy(head, hidden, alone)).abs().max() > 1e-3


def test_of_several_sources_each_that_answered_rightly_has_its_part_in_the_target(head):
    hidden, token = batch_of(3)
    sources = [source_logits(seed) for seed in (1, 2, 5)]
    weighting = Product(factors=[GoldPosterior(level="position"), Eligibility(), Uncertainty()])
    found = gradient_of_the_loss(head, hidden, token, sources, weighting, torch.arange(N), (0.5, 1.0, 0.0))
    p = torch.stack([each.softmax(-1) for each in sources])
    joint = p[:, torch.arange(N), token] * torch.tensor([0.5, 1.0, 0.0])[:, None]
    w = joint / joint.sum(0) * (1 - p.amax(-1))
    target = (1 - w.sum(0))[:, None] * nn.functional.one_hot(token, V) + (w[..., None] * p).sum(0)
    torch.testing.assert_close(found, gradient_of_cross_entropy(head, hidden, target), rtol=1e-5, atol=1e-8)


def test_rows_without_a_match_are_learned_from_the_text_alone(head):
    hidden, token = batch_of(5)
    matched = torch.tensor([0, 2, 3, 7])
    found = gradient_of_the_loss(head, hidden, token, [source_logits(1)], Uncertainty(), matched)
    text = gradient_of_cross_entropy(head, hidden, nn.functional.one_hot(token, V).double())
    others = [n for n in range(N) if n not in matched]
    torch.testing.assert_close(found[others], text[others])
    # each mean is over its own rows: KL's over those that match
    p = source_logits(1).softmax(-1)
    w = 1 - p.amax(-1, keepdim=True)
    onehot = nn.functional.one_hot(token, V).double()
    kl, ce = (gradient_of_cross_entropy(head, hidden, target) for target in (p, onehot))
    expected = (1 - w) * ce + w * kl * N / len(matched)
    torch.testing.assert_close(found[matched], expected[matched], rtol=1e-6, atol=1e-9)
