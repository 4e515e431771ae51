"""Spherical means and model stock on problems whose answer is known."""

import math

import pytest
import torch

from fusion.merging.methods.registry import Karcher, ModelStock, Slerp
from tests.helpers import reference_merge as reference
from tests.helpers.merge_examples import base_and_models


def test_slerp_turns_at_equal_angles_and_keeps_a_common_norm():
    merged = Slerp(t=1 / 3)(torch.zeros(2), [torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])])
    torch.testing.assert_close(merged, 2 * torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))


def test_slerp_goes_straight_between_opposite_models():
    a = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(Slerp(t=0.25)(a, [a, -a]), 0.5 * a)


def test_slerp_ends_at_its_models():
    base, models = base_and_models((5, 6), models=2)
    assert torch.equal(Slerp(t=0)(base, models), models[0])
    assert torch.equal(Slerp(t=1)(base, models), models[1])


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 3]])
def test_the_karcher_mean_has_the_least_spread_and_the_mean_norm(weights):
    draw = torch.Generator().manual_seed(1)
    models = [torch.randn(12, generator=draw) for _ in weights]
    merged = Karcher(weights=weights)(models[0], models)
    least = reference.sphere_spread(merged, models, weights)
    for scale in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            other = merged + scale * torch.randn(12, generator=draw)
            assert reference.sphere_spread(other, models, weights) > least - 1e-6 * least
    norms = sum(w * model.norm() for w, model in zip(weights, models, strict=True)) / sum(weights)
    torch.testing.assert_close(merged.norm(), norms)


def test_the_karcher_mean_of_two_is_half_way_by_slerp():
    base, (a, b) = base_and_models((7, 7), models=2)
    torch.testing.assert_close(
        Karcher()(base, [a / a.norm(), b / b.norm()]), Slerp()(base, [a / a.norm(), b / b.norm()])
    )


def test_model_stock_of_orthogonal_changes_is_the_base_and_of_parallel_ones_the_mean():
    base = torch.tensor([1.0, 1.0])
    apart = [base + torch.tensor([1.0, 0.0]), base + torch.tensor([0.0, 3.0])]
    assert torch.equal(ModelStock()(base, apart), base)
    along = [base + torch.tensor([1.0, 2.0]), base + torch.tensor([3.0, 6.0])]
    torch.testing.assert_close(ModelStock()(base, along), base + torch.tensor([2.0, 4.0]))
