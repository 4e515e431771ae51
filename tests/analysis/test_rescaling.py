"""The ratio of gradients that omega stands for, its known values, and the table of it."""

from __future__ import annotations

import math

import pytest
import torch

from fusion.analysis.rescaling import omega, rescaling


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_omega_is_the_ratio_of_the_gradients_at_the_true_token_and_summed_over_all_others(share):
    s, t = torch.randn(2, 20, 9, dtype=torch.float64) * 2
    s.requires_grad_()
    token = torch.randint(9, (20,))
    log_q, P = s.log_softmax(-1), t.softmax(-1)
    ce, kd = -log_q.gather(1, token[:, None])[:, 0], -(P * log_q).sum(-1)
    (plain,) = torch.autograd.grad(ce.sum(), s, retain_graph=True)
    (mixed,) = torch.autograd.grad(((1 - share) * ce + share * kd).sum(), s)
    is_gold = torch.nn.functional.one_hot(token, 9).bool()
    ours = omega(P[is_gold].log(), log_q.detach()[is_gold], share)
    torch.testing.assert_close(mixed[is_gold] / plain[is_gold], ours)
    rest = [torch.where(is_gold, 0, each).sum(-1) for each in (mixed, plain)]
    torch.testing.assert_close(rest[0] / rest[1], ours)


def test_known_values():
    p = torch.tensor([0.2, 0.5, 0.9]).double().log()
    torch.testing.assert_close(omega(p - 1, p, 0.0), torch.ones(3).double())
    torch.testing.assert_close(omega(p, p, 0.3), torch.full((3,), 0.7).double())
    torch.testing.assert_close(omega(torch.zeros(3).double(), p, 0.3), torch.ones(3).double())
    assert omega(torch.tensor([math.log(0.1)]), torch.tensor([math.log(0.9)]), 0.5).item() == pytest.approx(1 - 0.5 * 9)
    assert omega(torch.tensor([-1.0]), torch.tensor([0.0]), 0.5).isfinite().all()


def test_rows_are_counted_by_domain_and_by_the_pivots_probability():
    pivot = torch.tensor([0.05, 0.06, 0.3, 0.95, 0.95, 0.3]).log()
    source = torch.tensor([0.5, 0.01, 0.3, 0.2, math.nan, 0.9]).log()
    found = rescaling(source, pivot, ["a", "a", "a", "a", "a", "b"], share=0.5)
    assert [(r.domain, r.low, r.high, r.rows) for r in found] == [
        ("a", 0.0, 0.1, 2), ("a", 0.1, 0.5, 1), ("a", 0.9, 1.0, 1), ("b", 0.1, 0.5, 1),
    ]  # fmt: skip
    assert [r.negative for r in found] == [0.0, 0.0, 1.0, 0.0]
    assert found[1].median == pytest.approx(0.5, rel=1e-6)
    assert found[0].tenth < found[0].median < found[0].ninetieth
