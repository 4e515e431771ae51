"""Policy gradients in expectation: over all texts of a vocabulary of three, against the gradient of a divergence."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from fusion.core.example import ExampleInfo
from fusion.objectives import PolicyGradient, RolloutTargets
from tests.helpers.rollouts import inputs_of
from tests.helpers.rows import rows_of

STOP, LONGEST = 2, 3
PREFIXES = [p for n in range(LONGEST) for p in itertools.product((0, 1), repeat=n)]
TEXTS = [(*p, STOP) for p in PREFIXES] + list(itertools.product((0, 1), repeat=LONGEST))
"""Every text that ends, or is cut after three tokens."""
WIDE = {"clip": 1e9, "epsilon": 1.0, "epsilon_high": 1e9}


def table(seed: int, scale: float = 1.0) -> Tensor:
    """A model: logits of the next token after each prefix."""
    return scale * torch.randn(len(PREFIXES), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(model: Tensor, text: tuple[int, ...]):
    return rows_of(model[[PREFIXES.index(text[:n]) for n in range(len(text))]], 0, torch.tensor(text))


def gradient_of_texts(objective, pivot, writer, source, weaker=None, start=None) -> Tensor:
    """The expected gradient of the sum over tokens, texts drawn by `writer`."""
    found = torch.zeros_like(pivot)
    for text in TEXTS:
        theta = pivot.clone().requires_grad_()
        old = rows(writer, text).gold
        known = RolloutTargets(
            old,
            torch.zeros(1),
            None if start is None else rows(start, text).gold,
            {} if weaker is None else {"s": rows(weaker, text).gold},
        )
        infos = [ExampleInfo("d", "e", "rollouts")]
        inputs = inputs_of(rows(theta, text), {"s": rows(source, text)}, infos, known)
        (term,) = objective.terms(inputs)
        found += old.sum().exp() * torch.autograd.grad(term.total, theta)[0]
    return found


def gradient_of_kl(pivot, writer, other) -> Tensor:
    """The gradient of sum over tokens of KL(pi(.|c) ‖ other(.|c)), prefixes c fixed as `writer` reaches them."""
    theta = pivot.clone().requires_grad_()
    reached = torch.stack(
        [rows(writer, prefix).gold.sum().exp() if prefix else pivot.new_tensor(1.0) for prefix in PREFIXES]
    )
    log_pi, log_p = theta.log_softmax(-1), other.log_softmax(-1)
    kl = (log_pi.exp() * (log_pi - log_p)).sum(-1)
    return torch.autograd.grad((reached.detach() * kl).sum(), theta)[0]


def test_the_texts_are_all_that_there_are():
    pivot = table(0)
    assert sum(rows(pivot, text).gold.sum().exp().item() for text in TEXTS) == pytest.approx(1)


def test_on_its_own_text_the_pivot_descends_the_kl_to_the_source():
    pivot, source = table(0), table(1, 2.0)
    found = gradient_of_texts(PolicyGradient(**WIDE), pivot, pivot, source)
    torch.testing.assert_close(found, gradient_of_kl(pivot, pivot, source))
    assert found.abs().max() > 0.1


def test_on_text_of_an_earlier_pivot_the_ratio_corrects_each_token():
    pivot, source = table(0), table(1, 2.0)
    writer = pivot + table(3, 0.3)
    found = gradient_of_texts(PolicyGradient(**WIDE), pivot, writer, source)
    torch.testing.assert_close(found, gradient_of_kl(pivot, writer, source))
    uncorrected = gradient_of_texts(PolicyGradient(**WIDE | {"epsilon_high": 0.0}), pivot, writer, source)
    assert (uncorrected - found).abs().max() > 0.01


def test_where_the_relative_is_the_source_itself_the_anchor_alone_is_left():
    pivot, source, start = table(0), table(1), table(2)
    found = gradient_of_texts(PolicyGradient(**WIDE, beta=0.4), pivot, pivot, source, weaker=source, start=start)
    torch.testing.assert_close(found, 0.4 * gradient_of_kl(pivot, pivot, start))
    assert gradient_of_texts(PolicyGradient(**WIDE), pivot, pivot, source, weaker=source).abs().max() == 0


def test_a_relative_that_knows_nothing_gives_the_cross_entropy_of_the_source():
    """log p - log of a constant: in expectation the gradient of -sum pi log p, which is the KL and the entropy of pi."""
    pivot, source = table(0), table(1)
    found = gradient_of_texts(PolicyGradient(**WIDE), pivot, pivot, source, weaker=torch.zeros_like(pivot))
    to_source, to_uniform = (gradient_of_kl(pivot, pivot, other) for other in (source, torch.zeros_like(pivot)))
    torch.testing.assert_close(found, to_source - to_uniform)
