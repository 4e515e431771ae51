"""Graph-on-logits distillation against explicit graphs, brute-forced Gromov-Wasserstein distances and POT."""

from __future__ import annotations

import dataclasses

import numpy as np
import ot
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fusion.objectives import GLD, AnyObjective
from fusion.objectives.graph.gld import node_features, token_features
from fusion.objectives.rank.infifusion import standardise
from tests.helpers import reference
from tests.helpers.rows import random_rows, rows_of

SIZES = [(5, 7, 4, 11, 2), (1, 1, 1, 3, 1), (41, 29, 5, 67, 6), (4, 4, 4, 4, 4)]


@pytest.mark.parametrize(("N", "R", "k", "V", "examples"), SIZES)
@pytest.mark.parametrize("kind", ["standardised", "raw", "probabilities"])
@pytest.mark.parametrize("nodes", ["rank", "token"])
def test_gld_matches_the_explicit_graphs(N, R, k, V, examples, kind, nodes):
    pivot = random_rows(N, k, V, torch.float64, seed=1, examples=examples)
    source = random_rows(R, min(k + 2, V), V, torch.float64, seed=2, examples=examples)
    ours = GLD(top_k=k, input=kind, nodes=nodes)(pivot, source, examples)
    torch.testing.assert_close(ours, reference.gld(pivot, source, examples, k, kind, nodes))


@pytest.mark.parametrize("top_nodes", [1, 3, 8])
def test_only_the_largest_token_nodes_count(top_nodes):
    pivot, source = (random_rows(20, 5, 60, torch.float64, seed=s, examples=3) for s in (1, 2))
    ours = GLD(top_k=5, nodes="token", top_nodes=top_nodes)(pivot, source, 3)
    torch.testing.assert_close(ours, reference.gld(pivot, source, 3, 5, "standardised", "token", top_nodes))


@pytest.mark.parametrize(("N", "k"), [(1, 1), (6, 3), (37, 10)])
def test_features_are_the_row_sums_of_the_explicit_graph_and_so_are_their_gradients(N, k):
    z = torch.randn(N, k, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(k, dtype=torch.float64)
    ours = node_features(z, torch.zeros(N, dtype=torch.long), 1)[0]
    explicit = ((z.T @ z).sum(1) / (N * k)).sort(descending=True).values
    torch.testing.assert_close(ours, explicit)
    grads = [torch.autograd.grad((features * weight).sum(), z)[0] for features in (ours, explicit)]
    torch.testing.assert_close(*grads)


def test_tokens_instead_of_ranks_give_the_row_sums_of_the_graph_on_the_vocabulary():
    rows = random_rows(9, 4, 30, torch.float64)
    z = rows.logprobs.exp()
    dense = torch.zeros(9, 30, dtype=torch.float64).scatter(1, rows.ids, z)
    explicit = ((dense.T @ dense).sum(1) / (9 * 4)).sort(descending=True).values
    torch.testing.assert_close(token_features(z, rows.ids, rows.example, 1, 30)[0], explicit)
    more = token_features(z, rows.ids, rows.example, 1, 40)[0]
    torch.testing.assert_close(more, torch.cat([explicit, explicit.new_zeros(10)]))


def test_rows_standardised_over_their_own_entries_would_give_nothing():
    z = standardise(random_rows(20, 10, 50, torch.float64).logprobs)
    assert node_features(z, torch.zeros(20, dtype=torch.long), 1).abs().max() < 1e-12


def test_renormalised_probabilities_would_collapse_to_the_mean_row():
    p = random_rows(20, 10, 50, torch.float64).logprobs.softmax(-1)
    features = node_features(p, torch.zeros(20, dtype=torch.long), 1)[0]
    torch.testing.assert_close(features, p.mean(0).sort(descending=True).values / 10)


@pytest.mark.parametrize(("name", "reason"), [("z_scored", "identically zero"), ("renormalised", "collapses")])
def test_inputs_that_would_teach_nothing_are_refused_by_name(name, reason):
    with pytest.raises(ValidationError, match=f"input: {name}.*{reason}.*Use input: standardised.*probabilities"):
        TypeAdapter(AnyObjective).validate_python({"kind": "gld", "input": name})


@pytest.mark.parametrize("kind", ["standardised", "probabilities", "raw"])
def test_the_shipped_inputs_do_teach(kind):
    logits = torch.randn(12, 40, dtype=torch.float64, requires_grad=True)
    GLD(input=kind)(rows_of(logits, 10), random_rows(9, 10, 50, torch.float64), 1).sum().backward()
    assert logits.grad.abs().max() > 1e-4


@pytest.mark.parametrize("nodes", ["rank", "token"])
def test_the_order_of_the_rows_changes_nothing(nodes):
    pivot, source = random_rows(12, 5, 40, torch.float64, seed=1), random_rows(15, 5, 40, torch.float64, seed=2)
    shuffled = pivot.select(torch.randperm(12))
    torch.testing.assert_close(
        GLD(top_k=5, nodes=nodes)(shuffled, source, 1), GLD(top_k=5, nodes=nodes)(pivot, source, 1)
    )
    same = GLD(top_k=5, nodes=nodes)(shuffled, pivot, 1)
    torch.testing.assert_close(same, torch.zeros_like(same))


@pytest.mark.parametrize("nodes", ["rank", "token"])
def test_renaming_the_tokens_changes_nothing(nodes):
    logits, source = torch.randn(12, 40, dtype=torch.float64), random_rows(15, 5, 40, torch.float64)
    objective, renamed = GLD(top_k=5, nodes=nodes), logits[:, torch.randperm(40)]
    torch.testing.assert_close(objective(rows_of(renamed, 5), source, 1), objective(rows_of(logits, 5), source, 1))


def test_renaming_the_ranks_changes_nothing():
    z = torch.randn(12, 6, dtype=torch.float64)
    one = torch.zeros(12, dtype=torch.long)
    torch.testing.assert_close(node_features(z[:, torch.randperm(6)], one, 1), node_features(z, one, 1))


@pytest.mark.parametrize("nodes", ["rank", "token"])
def test_repeating_every_row_changes_nothing(nodes):
    pivot, source = random_rows(12, 5, 40, torch.float64, seed=1), random_rows(15, 5, 40, torch.float64, seed=2)
    longer = pivot.select(torch.arange(12).repeat(3))
    torch.testing.assert_close(
        GLD(top_k=5, nodes=nodes)(longer, source, 1), GLD(top_k=5, nodes=nodes)(pivot, source, 1)
    )


@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (1.0, 50.0), (0.2, -4.0)])
def test_a_factor_and_a_constant_on_the_logits_do_not_change_standardised_input(a, b):
    logits, source = torch.randn(12, 40, dtype=torch.float64), random_rows(15, 5, 50, torch.float64)
    objective = GLD(top_k=5)
    moved = objective(rows_of(a * logits + b, 5), source, 1)
    torch.testing.assert_close(moved, objective(rows_of(logits, 5), source, 1))


@pytest.mark.parametrize("side", ["pivot", "source"])
def test_an_example_without_rows_on_one_side_gives_zero_and_the_others_keep_their_value(side):
    rows = {"pivot": random_rows(12, 5, 40, seed=1, examples=3), "source": random_rows(15, 5, 40, seed=2, examples=3)}
    all_three = GLD(top_k=5)(rows["pivot"], rows["source"], 3)
    rows[side] = rows[side].select(rows[side].example != 1)
    values = GLD(top_k=5)(rows["pivot"], rows["source"], 3)
    torch.testing.assert_close(values, all_three * torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize("side", ["pivot", "source"])
def test_unknown_moments_are_refused_unless_the_input_needs_none(side):
    rows = {"pivot": random_rows(4, 5, 40, seed=1), "source": random_rows(4, 5, 40, seed=2)}
    std = rows[side].std.clone()
    std[2] = torch.nan
    rows[side] = dataclasses.replace(rows[side], std=std)
    with pytest.raises(ValueError, match=f"gld .*1 of 4 {side} rows do not.*Set another input of gld"):
        GLD(top_k=5)(rows["pivot"], rows["source"], 1)
    assert GLD(top_k=5, input="raw")(rows["pivot"], rows["source"], 1).isfinite().all()


def test_equal_logits_give_a_finite_value_and_gradient():
    logits = torch.zeros(3, 9, requires_grad=True)
    values = GLD(top_k=4)(rows_of(logits, 4), random_rows(3, 4, 9), 1)
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad.isfinite().all()


def random_graphs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = [torch.randn(rows, n, generator=generator, dtype=torch.float64) for rows in (7, 4)]
    nodes = [np.tile(np.arange(n), (len(each), 1)) for each in z]
    C, D = (reference.graph(each.numpy(), at, n) for each, at in zip(z, nodes, strict=True))
    return C, D, *z


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(6))
def test_the_sorted_form_brackets_the_brute_forced_distance(n, seed):
    C, D, _, _ = random_graphs(n, seed)
    lower, upper = reference.bracket(C, D)
    assert lower - 1e-12 <= reference.best_matching(C, D) <= upper + 1e-12


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_sorted_form_is_below_the_distance_of_every_plan(n):
    rng = np.random.default_rng(n)
    C, D, _, _ = random_graphs(n, n)
    for _ in range(50):
        plan = ot.emd(np.full(n, 1 / n), np.full(n, 1 / n), rng.random((n, n)))
        mixed = 0.5 * plan + 0.5 / n**2
        assert reference.bracket(C, D)[0] <= reference.gromov_wasserstein(C, D, mixed) + 1e-12


@pytest.mark.parametrize("n", [3, 8, 15])
def test_the_sorted_form_is_below_what_pot_finds(n):
    C, D, _, _ = random_graphs(n, n)
    uniform = np.full(n, 1 / n)
    squared = ot.gromov.gromov_wasserstein2(C, D, uniform, uniform, loss_fun="square_loss")
    assert 0 < reference.bracket(C, D)[0] <= float(squared) ** 0.5


@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_value_is_n_squared_times_the_lower_bound_before_its_normalisation(n):
    C, D, z, w = random_graphs(n, n)
    mine, theirs = (node_features(v, torch.zeros(len(v), dtype=torch.long), 1)[0] * len(v) * n for v in (z, w))
    assert (mine - theirs).abs().sum().item() == pytest.approx(n**2 * reference.bracket(C, D)[0])


def test_different_graphs_with_equal_row_sums_are_told_apart_by_the_distance_but_not_by_the_value():
    C, D = np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    assert reference.bracket(C, D)[0] == 0
    assert reference.best_matching(C, D) == 1
