"""`gromov_wasserstein` with `solver: pot`, against POT itself, brute force, known answers and finite differences."""

from __future__ import annotations

import dataclasses
import math
import sys
from itertools import permutations

import numpy as np
import ot
import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import GromovWasserstein
from fusion.objectives.graph.gromov import bounds, matching_cost, sorted_nodes
from fusion.objectives.graph.pot_solver import best_plan, distance, gram, information, plan_cost
from tests.helpers.rows import random_rows
from tests.objectives.graph.test_gromov import cost, graphs

F64 = torch.float64


def relabelled(z: torch.Tensor, seed: int) -> torch.Tensor:
    """The same graph with its nodes in another order, and without the order of the row sums."""
    return z[:, torch.randperm(z.shape[1], generator=torch.Generator().manual_seed(seed))]


def least(C, D) -> float:
    """Least cost over all matchings."""
    n = len(C)
    return min(((C - D[np.ix_(order, order)]) ** 2).mean() for order in map(list, permutations(range(n))))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(4))
def test_the_least_over_all_matchings_is_found_and_never_gone_below(n, seed):
    z, y, C, D = graphs(n, seed)
    assert distance(z, y, starts=1, seed=0) >= least(C, D) - 1e-12
    assert distance(z, y, starts=150, seed=0).item() == pytest.approx(least(C, D), rel=1e-9)


@pytest.mark.parametrize("n", [3, 10, 40])
def test_no_value_leaves_our_two_bounds_and_more_starts_are_never_worse(n):
    z, y, _, _ = graphs(n, n, (12, 9))
    lower, upper = bounds(z, y).tolist()
    found = [distance(z, y, starts=starts, seed=0).item() for starts in (1, 4, 12)]
    assert found == sorted(found, reverse=True)
    assert lower < found[-1]
    assert found[0] <= upper * (1 + 1e-12)


@pytest.mark.parametrize("n", [4, 10, 25])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_pot_finds_from_the_same_start_and_pots_own_start_leads_to_the_sorted_matching(n, seed):
    z, y, C, D = graphs(n, seed)
    even = np.full(n, 1 / n)
    known = ot.gromov.gromov_wasserstein2(C, D, even, even, G0=np.eye(n) / n, symmetric=True)
    assert distance(z, y, starts=1, seed=0).item() == pytest.approx(known, rel=1e-6)
    first = ot.gromov.gromov_wasserstein(C, D, even, even, symmetric=True, max_iter=1)  # one step
    assert np.allclose(first, np.eye(n) / n)


@pytest.mark.parametrize("n", [3, 8])
def test_a_graph_and_itself_with_its_nodes_in_another_order_are_at_distance_0(n):
    z, _, _, _ = graphs(n, n)
    other = relabelled(z, 1)
    assert matching_cost(z, other) > 0.01
    assert distance(z, sorted_nodes(other), starts=1, seed=0).item() == pytest.approx(0, abs=1e-12)
    assert distance(z, other, starts=150, seed=0).item() == pytest.approx(0, abs=1e-12)
    assert distance(z, z, starts=1, seed=0).item() == pytest.approx(0, abs=1e-12)


def test_graphs_whose_nodes_have_equal_row_sums_are_matched_by_search_where_sorting_cannot():
    pairs = torch.block_diag(*[torch.ones(2, 2, dtype=F64)] * 3) / 2**0.5  # three edges between six nodes
    other = pairs[:, [0, 2, 1, 3, 4, 5]]
    assert torch.allclose(gram(pairs).sum(0), gram(other).sum(0))
    assert matching_cost(pairs, other) > 1e-3
    assert distance(pairs, other, starts=10, seed=0).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_the_cost_of_a_plan_is_the_sum_over_all_pairs_of_nodes(n):
    _, _, C, D = graphs(n, n)
    plan = ot.emd(np.full(n, 1 / n), np.full(n, 1 / n), np.random.default_rng(n).random((n, n))) * 0.5 + 0.5 / n**2
    assert plan_cost(*map(torch.from_numpy, (C, D, plan))).item() == pytest.approx(cost(C, D, plan), rel=1e-9)
    assert information(torch.full((n, n), 1 / n**2, dtype=F64)).item() == pytest.approx(0, abs=1e-12)
    assert information(torch.eye(n, dtype=F64) / n).item() == pytest.approx(math.log(n))


@pytest.mark.parametrize("n", [4, 10])
@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_the_entropic_plan_is_that_of_pots_entropic_solver(n, epsilon):
    _, _, C, D = graphs(n, n, (12, 9))
    C, D = C / abs(D).max(), D / abs(D).max()
    even = np.full(n, 1 / n)
    known = ot.gromov.entropic_gromov_wasserstein(
        C, D, even, even, epsilon=epsilon, symmetric=True, G0=np.eye(n) / n, max_iter=200, tol=1e-12
    )
    found = best_plan(torch.from_numpy(C), torch.from_numpy(D), starts=1, seed=0, epsilon=epsilon)
    assert np.allclose(found, known, atol=1e-7)
    assert np.allclose(found.sum(1), even)


def test_the_entropic_value_is_never_below_the_distance_and_grows_with_epsilon():
    z, y, C, D = graphs(5, 2)
    values = [distance(z, y, starts=2, seed=0, epsilon=epsilon).item() for epsilon in (0.1, 0.4, 1.6)]
    assert least(C, D) < values[0] < values[1] < values[2]


@pytest.mark.parametrize("epsilon", [None, 0.1, 0.5])
@pytest.mark.parametrize("n", [3, 5])
def test_the_gradient_with_the_plan_held_is_that_of_finite_differences(n, epsilon):
    z, y, _, _ = graphs(n, n, (2, 4))
    z.requires_grad_()

    def value(z):
        return distance(z, y, starts=1, seed=0, epsilon=epsilon)

    assert torch.autograd.gradcheck(value, z, atol=1e-6, rtol=1e-4)
    assert torch.autograd.grad(value(z), z)[0].abs().max() > 1e-3


def test_it_gives_the_same_numbers_each_time_and_takes_no_number_of_torchs_generator():
    pivot, source = (random_rows(20, 6, 50, F64, seed=s, examples=3) for s in (1, 2))
    term = GromovWasserstein(top_k=6, solver="pot", starts=5)
    state = torch.random.get_rng_state()
    assert torch.equal(term(pivot, source, 3), term(pivot, source, 3))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("nodes", ["rank", "token"])
def test_each_examples_value_lies_in_its_bracket(nodes):
    pivot, source = (random_rows(20, 6, 50, F64, seed=s, examples=3) for s in (1, 2))
    term = GromovWasserstein(top_k=5, nodes=nodes, top_nodes=12, solver="pot", starts=8)
    lower, upper = term.bracket(pivot, source, 3) ** 2
    values = term(pivot, source, 3)
    assert (lower <= values).all()
    assert (values <= upper * (1 + 1e-12)).all()
    assert nodes == "rank" or (values < upper * (1 - 1e-6)).all()


def test_an_example_without_rows_on_a_side_counts_0():
    pivot, source = (random_rows(20, 6, 50, F64, seed=s, examples=3) for s in (1, 2))
    values = GromovWasserstein(top_k=4, solver="pot")(pivot.select(pivot.example != 1), source, 3)
    assert values[1] == 0
    assert (values[[0, 2]] > 0).all()


def test_without_pot_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    rows = random_rows(8, 6, 50, F64, seed=1)
    with pytest.raises(ValueError, match=r"pip install 'logit-fusion\[gw\]', or use solver: sorted"):
        GromovWasserstein(top_k=4, solver="pot")(rows, rows, 1)
    assert GromovWasserstein(top_k=4)(rows, rows, 1).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epsilon": 0.1}, "epsilon: read by solver: pot alone, and solver is sorted"),
        ({"starts": 2, "seed": 3}, "starts and seed: read by solver: pot alone"),
        ({"solver": "pot", "bound": "lower"}, "bound: lower is a closed form, and solver: pot searches"),
        ({"solver": "pot", "starts": 1, "seed": 3}, "starts: 1 has none"),
        ({"solver": "pot", "top_k": 101}, "top_k: 101 with solver: pot, .* up to 100 nodes are allowed"),
        ({"solver": "pot", "nodes": "token", "top_nodes": 500}, "top_nodes: 500 with solver: pot"),
        ({"solver": "pot", "epsilon": 0.001}, "greater than or equal to 0.02"),
        ({"solver": "exact"}, "'sorted' or 'pot'"),
    ],
)
def test_settings_that_would_do_nothing_or_take_too_long_are_refused_by_name(settings, said):
    with pytest.raises(ValidationError, match=said):
        GromovWasserstein(**settings)


def test_the_other_kind_of_node_is_not_counted_against_the_limit():
    assert GromovWasserstein(solver="pot", nodes="token", top_k=200).top_k == 200
    assert GromovWasserstein(solver="pot", top_nodes=5000).top_nodes == 5000


def test_low_precision_rows_are_solved_in_float64_and_answered_in_their_own():
    pivot, source = (random_rows(20, 6, 50, F64, seed=s, examples=2) for s in (1, 2))
    term = GromovWasserstein(top_k=5, solver="pot")
    low = dataclasses.replace(
        pivot, logprobs=pivot.logprobs.bfloat16(), mean=pivot.mean.bfloat16(), std=pivot.std.bfloat16()
    )
    values = term(low, source, 2)
    assert values.dtype == torch.bfloat16
    torch.testing.assert_close(values.double(), term(pivot, source, 2), rtol=0.1, atol=0.1)
