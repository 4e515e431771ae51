"""Where a step is clipped against PPO's surrogate, and both estimates of KL against the KL itself."""

from __future__ import annotations

import pytest
import torch

from fusion.objectives import GroupReward
from fusion.objectives.policy.base import Advantages
from fusion.objectives.policy.ratio import importance_ratio, is_clipped, kl_from_old, kl_from_reference
from fusion.objectives.policy.rollouts import RolloutRows
from tests.helpers.rows import rows_of

RATIOS = [1e-9, 0.1, 0.49, 0.51, 0.9, 1.0, 1.2, 1.99, 2.01, 7.0, 1e5]


def ours(ratio, advantage, objective):
    """Gradient of the value of one token with respect to its log-probability."""
    pivot = rows_of(torch.zeros(1, 3, dtype=torch.float64), 0)
    gold = pivot.gold.clone().requires_grad_()
    old = gold.detach() - torch.tensor([ratio], dtype=torch.float64).log()
    rows = RolloutRows(torch.arange(1), type(pivot)(**{**vars(pivot), "gold": gold}), old, old * 0, None)
    values = objective(rows, {"group_reward": Advantages(torch.tensor([advantage], dtype=torch.float64))})
    return torch.autograd.grad(values["group_reward"].sum(), gold)[0].item()


def ppo(ratio, advantage, objective):
    """The same of -min(r A, clip(r) A), by central differences."""
    low, high, step = 1 - objective.epsilon, 1 + objective.epsilon_high, 1e-6

    def surrogate(moved):
        r = ratio * torch.tensor(moved, dtype=torch.float64).exp().item()
        return -min(r * advantage, min(max(r, low), high) * advantage)

    return (surrogate(step) - surrogate(-step)) / (2 * step)


@pytest.mark.parametrize("advantage", [-2.0, -0.3, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("bounds", [{}, {"epsilon": 0.2, "epsilon_high": 0.28}], ids=str)
def test_the_gradient_is_that_of_ppo_except_far_above_the_bound_on_the_way_down(advantage, bounds):
    objective = GroupReward(**bounds)
    high = 1 + objective.epsilon_high
    for ratio in RATIOS:
        if advantage < 0 and ratio > high:
            assert ours(ratio, advantage, objective) == pytest.approx(-high * advantage)
        else:
            assert ours(ratio, advantage, objective) == pytest.approx(ppo(ratio, advantage, objective), rel=1e-6)


def test_a_token_on_its_way_back_is_not_clipped():
    ratio, up = torch.tensor([0.1, 0.1, 1.0, 1.0, 5.0, 5.0]), torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    assert is_clipped(ratio, up, 0.5, 1.0).tolist() == [False, True, False, False, True, False]
    assert not is_clipped(ratio, up * 0, 0.5, 1.0).any()


def test_the_estimates_of_kl_are_never_negative_and_their_means_over_what_was_drawn_are_the_kl():
    generator = torch.Generator().manual_seed(0)
    pi, mu, start = torch.randn(3, 50, dtype=torch.float64, generator=generator).log_softmax(-1)
    moved, drifted = kl_from_old(pi - mu), kl_from_reference(pi - mu, pi, start)
    assert (moved >= 0).all()
    assert (drifted >= 0).all()
    assert (mu.exp() * moved).sum().item() == pytest.approx((pi.exp() * (pi - mu)).sum().item())
    assert (mu.exp() * drifted).sum().item() == pytest.approx((pi.exp() * (pi - start)).sum().item())
    assert kl_from_old(pi - pi).abs().max() == 0


def test_ratios_of_texts_that_the_pivot_no_longer_would_write_or_always_would_are_finite():
    far = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4])
    for found in (importance_ratio(far), kl_from_old(far), kl_from_reference(far, far, far.flip(0))):
        assert found.isfinite().all()
