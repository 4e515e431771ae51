"""Entropic transport against POT, against plans that are known, and against what must not change it."""

import dataclasses
import math

import numpy as np
import ot
import pytest
import torch

from fusion.objectives import ModuleSpec, OptimalTransport
from fusion.objectives.hidden.optimal_transport import costs, even, sinkhorn
from tests.helpers.hidden_rows import random_states, rotation, rows_with


def value(x, y, **options):
    return OptimalTransport(**options)(rows_with(x), rows_with(y), 1)


def plan_of(cost, alpha, iterations=100):
    n, m = cost.shape
    masses = (even(torch.ones(1, size, dtype=torch.bool), cost) for size in (n, m))
    return sinkhorn(cost[None], *masses, alpha, iterations)[0]


@pytest.mark.parametrize("kind", ["cosine", "attention", "euclidean"])
@pytest.mark.parametrize("alpha", [0.1, 5.0, 40.0])
@pytest.mark.parametrize("sizes", [(7, 5), (1, 4), (30, 31)])
def test_plan_and_cost_are_those_of_pot_after_as_many_iterations(kind, alpha, sizes):
    x, y = random_states(sizes[0], 6), random_states(sizes[1], 6, seed=1)
    cost = costs(x[None], y[None], torch.ones(1, sizes[1], dtype=torch.bool), kind)[0]
    masses = (np.full(size, 1 / size) for size in sizes)
    known = ot.bregman.sinkhorn_log(*masses, cost.numpy(), 1 / alpha, numItermax=100, stopThr=0, warn=False)
    np.testing.assert_allclose(plan_of(cost, alpha).numpy(), known, rtol=1e-9, atol=1e-15)
    found = value(x, y, cost=kind, alpha=alpha).item()
    assert found == pytest.approx((known * cost.numpy()).sum(), rel=1e-9)


def test_costs_are_what_they_are_called():
    x, y = random_states(4, 6), random_states(5, 6, seed=1)
    there = torch.ones(1, 5, dtype=torch.bool)
    np.testing.assert_allclose(costs(x[None], y[None], there, "cosine")[0], ot.dist(x.numpy(), y.numpy(), "cosine"))
    np.testing.assert_allclose(
        costs(x[None], y[None], there, "euclidean")[0], ot.dist(x.numpy(), y.numpy(), "euclidean")
    )
    attention = 1 - (x @ y.T / math.sqrt(6)).softmax(-1)
    torch.testing.assert_close(costs(x[None], y[None], there, "attention")[0], attention)


def test_rows_and_columns_of_a_plan_sum_to_the_masses():
    cost = costs(random_states(1, 7, 6), random_states(1, 5, 6, seed=1), torch.ones(1, 5, dtype=torch.bool), "cosine")
    plan = plan_of(cost[0], 10.0, 1000)
    torch.testing.assert_close(plan.sum(1), torch.full((7,), 1 / 7, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((5,), 1 / 5, dtype=torch.float64))


def test_under_the_product_plan_the_attention_cost_says_nothing():
    """Why the paper's alpha teaches so little: 1 - 1/n whatever the states are."""
    for seed in range(3):
        x, y = random_states(7, 6, seed=seed), random_states(5, 6, seed=seed + 9) * 4
        assert value(x, y, cost="attention", alpha=1e-12).item() == pytest.approx(1 - 1 / 5, abs=1e-10)


def test_the_papers_setting_has_a_far_smaller_gradient():
    norms = {}
    for cost, alpha in (("attention", 0.1), ("attention", 20.0), ("cosine", 0.1), ("cosine", 20.0)):
        x, y = random_states(20, 16).requires_grad_(), random_states(24, 16, seed=1)
        norms[cost, alpha] = torch.autograd.grad(value(x, y, cost=cost, alpha=alpha).sum(), x)[0].norm().item()
    assert norms["attention", 0.1] < norms["attention", 20.0] / 50
    assert norms["attention", 0.1] < min(norms["cosine", 0.1], norms["cosine", 20.0]) / 20


def test_a_sharper_plan_of_equal_clouds_costs_less_and_has_less_entropy():
    x = random_states(12, 16)
    values = [value(x, x, alpha=alpha).item() for alpha in (0.1, 1.0, 10.0, 50.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.5
    assert values[2] < 0.05
    assert values[3] < 1e-6
    cost = costs(x[None], x[None], torch.ones(1, 12, dtype=torch.bool), "cosine")[0]
    plans = [plan_of(cost, alpha) for alpha in (0.1, 1.0, 10.0, 50.0)]
    entropies = [-(plan * plan.log()).nan_to_num().sum().item() for plan in plans]
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[0] == pytest.approx(2 * math.log(12), abs=0.05)


@pytest.mark.parametrize("kind", ["cosine", "attention", "euclidean"])
def test_the_order_of_either_sides_rows_changes_nothing(kind):
    x, y = random_states(7, 6), random_states(5, 6, seed=1)
    moved = value(x[torch.randperm(7)], y[torch.randperm(5)], cost=kind)
    torch.testing.assert_close(moved, value(x, y, cost=kind))


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_swapping_the_sides_changes_nothing_for_a_symmetric_cost(kind):
    x, y = random_states(7, 6), random_states(5, 6, seed=1)
    options = {"cost": kind, "alpha": 5.0, "iterations": 2000}
    torch.testing.assert_close(value(x, y, **options), value(y, x, **options))


@pytest.mark.parametrize("kind", ["cosine", "attention", "euclidean"])
def test_longer_examples_in_the_batch_change_nothing(kind):
    """What stands beside a short example is padding, which takes no part in value or gradient."""
    x, y = random_states(37, 6).requires_grad_(), random_states(45, 6, seed=1)
    sides = [rows_with(each, torch.tensor([0] * short + [1] * (len(each) - short))) for each, short in ((x, 7), (y, 5))]
    together = OptimalTransport(cost=kind)(*sides, 2)
    alone = value(x[:7], y[:5], cost=kind)
    torch.testing.assert_close(together[:1], alone)
    gradients = [torch.autograd.grad(each, x)[0] for each in (together[0], alone[0])]
    torch.testing.assert_close(*gradients)


def test_an_example_that_only_one_side_has_counts_nothing():
    x, y = rows_with(random_states(7, 6).requires_grad_()), rows_with(random_states(5, 6, seed=1))
    y = dataclasses.replace(y, example=torch.ones(5, dtype=torch.long))
    values = OptimalTransport()(x, y, 2)
    assert torch.equal(values, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(torch.autograd.grad(values.sum(), x.hidden)[0], torch.zeros(7, 6, dtype=torch.float64))


def test_a_step_along_the_gradient_of_projector_and_states_lowers_it():
    term, x, y = (
        OptimalTransport(),
        rows_with(random_states(9, 6).requires_grad_()),
        rows_with(random_states(8, 4, seed=1)),
    )
    module = term.build_module(ModuleSpec(6, 4, 100, lambda _: None, lambda: None)).double()
    before = term(x, y, 1, module)
    gradient = torch.autograd.grad(before.sum(), [x.hidden, module.weight])
    with torch.no_grad():
        module.weight -= 0.1 * gradient[1]
    assert term(x, y, 1, module) < before
    assert term(dataclasses.replace(x, hidden=x.hidden - 0.1 * gradient[0]), y, 1, module) < before - 1e-3


def test_the_projector_changes_nothing_at_first_where_widths_agree():
    term, x, y = OptimalTransport(), rows_with(random_states(9, 6)), rows_with(random_states(8, 6, seed=1))
    assert torch.equal(
        term(x, y, 1, term.build_module(ModuleSpec(6, 6, 100, lambda _: None, lambda: None)).double()), term(x, y, 1)
    )
    turned = rows_with(x.hidden @ rotation(6)), rows_with(y.hidden @ rotation(6))
    torch.testing.assert_close(term(*turned, 1), term(x, y, 1))


def test_a_source_without_hidden_states_has_no_projector():
    with pytest.raises(
        ValueError, match="cache keeps no hidden states; extract it again with extract.hidden_states: true"
    ):
        OptimalTransport().build_module(ModuleSpec(6, None, 100, lambda _: None, lambda: None))


def test_with_another_answer_the_value_is_the_mean_of_both_costs_and_elsewhere_that_of_one():
    x, y, z = random_states(12, 6), random_states(9, 6, seed=1), random_states(7, 6, seed=2)
    mine, theirs = rows_with(x, torch.arange(12) // 6), rows_with(y, torch.arange(9) // 5)
    other = rows_with(z, torch.ones(7, dtype=torch.long))  # the first example has none
    term = OptimalTransport(other_answers=True)
    same, across = term(mine, theirs, 2), term(mine, other, 2)
    assert across[1] > 0
    expected = torch.stack([same[0], (same[1] + across[1]) / 2])
    torch.testing.assert_close(term(mine, theirs, 2, other=other), expected)
    torch.testing.assert_close(term(mine, theirs, 2, other=theirs), same)
    torch.testing.assert_close(term(mine, theirs, 2, other=other.select(slice(0, 0))), same)


def test_another_answer_goes_through_the_same_projector():
    mine, theirs, other = (rows_with(random_states(5, d, seed=i)) for i, d in enumerate((6, 4, 4)))
    term = OptimalTransport(other_answers=True)
    module = term.build_module(ModuleSpec(6, 4, 100, lambda _: None, lambda: None)).double()
    projected = [dataclasses.replace(rows, hidden=module(rows.hidden)) for rows in (theirs, other)]
    torch.testing.assert_close(
        term(mine, theirs, 1, module, other=other), term(mine, projected[0], 1, other=projected[1])
    )


def test_a_term_with_other_answers_reads_them_and_is_another_training():
    plain, both = OptimalTransport(), OptimalTransport(other_answers=True)
    assert not plain.requirements.other_answers
    assert both.requirements.other_answers
    assert both.model_dump() == plain.model_dump() | {"other_answers": True}
