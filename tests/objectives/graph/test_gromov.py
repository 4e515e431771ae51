"""Both sides of the Gromov-Wasserstein distance against explicit graphs, brute force, and POT."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import ot
import pytest
import torch

from fusion.objectives import GLD
from fusion.objectives.graph.gromov import GromovWasserstein, bounds, by_token, matching_cost, row_sums, sorted_nodes
from tests.helpers.rows import random_rows


def graphs(n: int, seed: int, rows=(7, 4)):
    generator = torch.Generator().manual_seed(seed)
    z, y = (sorted_nodes(torch.randn(t, n, generator=generator, dtype=torch.float64)) for t in rows)
    return z, y, (z.T @ z / len(z)).numpy(), (y.T @ y / len(y)).numpy()


def cost(C, D, plan) -> float:
    """Sum over i, j, i', j' of (C_ij - D_i'j')^2 plan_ii' plan_jj'."""
    return float(np.einsum("ijkl,ik,jl->", (C[:, :, None, None] - D[None, None]) ** 2, plan, plan))


@pytest.mark.parametrize("rows", [(7, 4), (2, 3), (1, 1), (50, 60)])
@pytest.mark.parametrize("n", [1, 3, 9, 40])
def test_the_cost_of_the_sorted_matching_is_that_of_the_explicit_graphs(n, rows):
    z, y, C, D = graphs(n, n, rows)
    upper = bounds(z, y)[1].item()
    assert upper == pytest.approx(((C - D) ** 2).mean(), rel=1e-9)
    if n <= 9:
        assert upper == pytest.approx(cost(C, D, np.eye(n) / n), rel=1e-9)
    assert (np.diff(C.sum(1)) <= 1e-9).all()


@pytest.mark.parametrize(("n", "rows"), [(5, (40, 30)), (30, (6, 9))])
def test_gram_matrices_over_rows_and_over_nodes_give_the_same_cost_and_gradient(n, rows):
    z, y, _, _ = graphs(n, 1, rows)
    z.requires_grad_()
    over_rows = ((z @ z.T).square().sum() / len(z) ** 2 + (y @ y.T).square().sum() / len(y) ** 2) / n**2
    over_rows = over_rows - 2 * (z @ y.T).square().sum() / (len(z) * len(y) * n**2)
    over_nodes = (z.T @ z / len(z) - y.T @ y / len(y)).square().mean()
    for known in (over_rows, over_nodes):
        torch.testing.assert_close(matching_cost(z, y), known)
        grads = [torch.autograd.grad(value, z, retain_graph=True)[0] for value in (matching_cost(z, y), known)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(6))
def test_the_bracket_holds_the_brute_forced_distance(n, seed):
    z, y, C, D = graphs(n, seed)
    lower, upper = bounds(z, y).tolist()
    best = min(cost(C, D, np.eye(n)[list(order)] / n) for order in permutations(range(n)))
    assert lower - 1e-12 <= best <= upper + 1e-12


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_lower_bound_is_below_the_cost_of_every_plan(n):
    rng = np.random.default_rng(n)
    z, y, C, D = graphs(n, n)
    for _ in range(50):
        plan = ot.emd(np.full(n, 1 / n), np.full(n, 1 / n), rng.random((n, n)))
        assert bounds(z, y)[0].item() <= cost(C, D, 0.5 * plan + 0.5 / n**2) + 1e-12


@pytest.mark.parametrize("n", [3, 8, 15])
def test_pots_solver_started_from_the_sorted_matching_ends_inside_the_bracket(n):
    z, y, C, D = graphs(n, n)
    uniform = np.full(n, 1 / n)
    start = np.eye(n) / n
    found = float(ot.gromov.gromov_wasserstein2(C, D, uniform, uniform, loss_fun="square_loss", G0=start))
    lower, upper = bounds(z, y).tolist()
    assert lower <= found + 1e-9
    assert found <= upper + 1e-9
    assert 0 < lower < upper


def test_graphs_with_equal_row_sums_are_told_apart_by_the_upper_side_only():
    z, y = 2 * torch.eye(2).double(), torch.ones(2, 2).double()
    assert torch.equal(row_sums(z), row_sums(y))
    lower, upper = bounds(z, y).tolist()
    assert lower == pytest.approx(0, abs=1e-15)
    assert upper == pytest.approx(1)


@pytest.mark.parametrize("nodes", ["rank", "token"])
@pytest.mark.parametrize("kind", ["standardised", "raw", "probabilities"])
def test_each_examples_bracket_is_that_of_its_own_rows(nodes, kind):
    pivot, source = (random_rows(20, 6, 50, torch.float64, seed=s, examples=3) for s in (1, 2))
    objective = GromovWasserstein(top_k=5, nodes=nodes, input=kind, top_nodes=12)
    lower, upper = objective.bracket(pivot, source, 3)
    assert (lower <= upper).all()
    torch.testing.assert_close(objective(pivot, source, 3), upper**2)
    torch.testing.assert_close(objective.model_copy(update={"bound": "lower"})(pivot, source, 3), lower**2)
    alone = objective.bracket(*(rows.select(rows.example == 0) for rows in (pivot, source)), 1)
    torch.testing.assert_close(alone[:, 0], torch.stack([lower[0], upper[0]]))


def test_the_lower_side_is_the_square_of_what_gld_takes_the_absolute_value_of():
    pivot, source = (random_rows(20, 5, 50, torch.float64, seed=s) for s in (1, 2))
    squares = GromovWasserstein(top_k=5, bound="lower")(pivot, source, 1).item()
    absolute = GLD(top_k=5)(pivot, source, 1).item()
    assert squares**0.5 >= absolute / 5 - 1e-12  # the root of a mean of squares is never below the mean
    assert squares**0.5 <= absolute


def test_tokens_become_columns_and_missing_ones_are_zero():
    ids = torch.tensor([[3, 7], [7, 9]])
    dense = by_token(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), ids, 4)
    assert sorted(dense.T.tolist()) == sorted([[1.0, 0.0], [2.0, 3.0], [0.0, 4.0], [0.0, 0.0]])


@pytest.mark.parametrize("nodes", ["rank", "token"])
def test_the_order_and_number_of_repeated_rows_changes_nothing(nodes):
    pivot, source = random_rows(12, 5, 40, torch.float64, seed=1), random_rows(15, 5, 40, torch.float64, seed=2)
    objective = GromovWasserstein(top_k=5, nodes=nodes)
    longer = pivot.select(torch.randperm(12).repeat(3))
    torch.testing.assert_close(objective(longer, source, 1), objective(pivot, source, 1))
