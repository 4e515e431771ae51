"""Affinities against numpy, against what must not change them, and the sketch against what it estimates, by many draws."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from fusion.objectives import Affinity
from tests.helpers.hidden_rows import random_states, rotation, rows_with


def cosines(hidden):
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    return unit @ unit.T


def values(mine, theirs, example=None, examples=1, **options):
    return Affinity(**options)(rows_with(mine, example), rows_with(theirs, example), examples)


@pytest.mark.parametrize("sizes", [(7,), (1, 5, 90), (3, 1)])
def test_affinities_of_both_orders_are_those_of_numpy(sizes):
    example = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    mine, theirs = random_states(sum(sizes), 5), random_states(sum(sizes), 8, seed=1)
    for number, n in enumerate(sizes):
        inside = example == number
        apart = cosines(mine[inside].numpy()) - cosines(theirs[inside].numpy())
        first, second = np.abs(apart).sum() / n**2, np.linalg.norm(apart) / n
        assert values(mine, theirs, example, len(sizes), order=1)[number].item() == pytest.approx(first, abs=1e-12)
        assert values(mine, theirs, example, len(sizes), order=2)[number].item() == pytest.approx(second, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("sketch", [None, 3])
def test_rotations_lengths_and_widths_change_nothing(order, sketch):
    mine, theirs = random_states(9, 6), random_states(9, 4, seed=1)
    before = values(mine, theirs, order=order, sketch=sketch)
    wider = torch.cat([theirs, torch.zeros(9, 3, dtype=theirs.dtype)], dim=1) @ rotation(7)
    scaled = mine @ rotation(6) * torch.rand(9, 1, dtype=torch.float64).add(0.1)
    torch.testing.assert_close(values(scaled, wider, order=order, sketch=sketch), before)
    assert values(mine, mine @ rotation(6), order=order, sketch=sketch).item() == pytest.approx(0, abs=1e-12)
    assert before.item() > 0.01


def test_below_the_diagonal_is_half_of_all():
    """Why there is no option for causal models."""
    mine, theirs = random_states(9, 6), random_states(9, 4, seed=1)
    apart = np.tril(cosines(mine.numpy()) - cosines(theirs.numpy()), -1)
    assert values(mine, theirs, order=1).item() == pytest.approx(2 * np.abs(apart).sum() / 81)


def sketched(order, count, **options):
    mine, theirs = random_states(12, 4), random_states(12, 6, seed=1)
    apart = cosines(mine.numpy()) - cosines(theirs.numpy())
    found = [values(mine, theirs, order=order, seed=seed, **options).item() for seed in range(count)]
    return np.array(found), apart, 12


def test_the_square_of_the_second_order_sketch_is_unbiased_with_the_stated_variance():
    found, apart, n = sketched(2, 3000, sketch=1)
    truth = (apart**2).sum() / n**2
    predicted = 2 * np.linalg.norm(apart @ apart) ** 2 / np.linalg.norm(apart) ** 4
    assert (found**2).mean() == pytest.approx(truth, rel=4 * math.sqrt(predicted / 3000))
    assert (found**2).var() / truth**2 == pytest.approx(predicted, rel=0.25)
    assert found.mean() < math.sqrt(truth) * 0.99  # the root is biased


def test_the_first_order_sketch_estimates_lengths_of_rows_and_not_the_first_order():
    found, apart, n = sketched(1, 1500, sketch=2)
    lengths = math.sqrt(2 / math.pi) * np.linalg.norm(apart, axis=1).sum() / n**2
    assert found.mean() == pytest.approx(lengths, rel=0.02)
    assert abs(found.mean() - np.abs(apart).sum() / n**2) > 0.1 * found.mean()


def test_a_wide_sketch_is_close_to_the_whole():
    found, apart, n = sketched(2, 1, sketch=20_000)
    assert found[0] == pytest.approx(np.linalg.norm(apart) / n, rel=0.02)


def test_a_fresh_sketch_is_drawn_at_each_step_and_a_fixed_one_is_not(total_at_step):
    mine, theirs = random_states(9, 6), random_states(9, 4, seed=1)
    fresh, fixed = Affinity(sketch=3), Affinity(sketch=3, fresh=False)
    rows = rows_with(mine), rows_with(theirs)
    each = [total_at_step(fresh, step, *rows).item() for step in (0, 1, 2, 1)]
    assert len(set(each)) == 3
    assert each[1] == each[3]
    assert each[:3] == [Affinity(sketch=3, seed=seed)(*rows, 1).item() for seed in range(3)]
    assert {total_at_step(fixed, step, *rows).item() for step in range(3)} == {fixed(*rows, 1).item()}


def test_the_sketch_of_an_example_does_not_depend_on_the_others_in_the_batch():
    mine, theirs = random_states(230, 6), random_states(230, 4, seed=1)
    example = torch.tensor([0] * 30 + [1] * 200)
    together = values(mine, theirs, example, 2, sketch=3)
    torch.testing.assert_close(together[:1], values(mine[:30], theirs[:30], sketch=3))


def test_states_of_zero_resemble_nothing_and_get_no_gradient():
    mine, theirs = random_states(5, 6), random_states(5, 4, seed=1)
    mine[2] = 0
    mine.requires_grad_()
    value = values(mine, theirs)
    value.sum().backward()
    assert value.isfinite().all()
    assert mine.grad.isfinite().all()
    assert (mine.grad[2] == 0).all()
    assert (mine.grad[1] != 0).any()


def test_a_step_along_the_gradient_lowers_it():
    mine, theirs = random_states(9, 6).requires_grad_(), random_states(9, 4, seed=1)
    before = values(mine, theirs, order=2)
    (gradient,) = torch.autograd.grad(before.sum(), mine)
    assert values(mine - 0.1 * gradient / gradient.norm(), theirs, order=2) < before - 1e-3


def test_rows_without_hidden_states_are_refused():
    rows = rows_with(random_states(5, 6))
    with pytest.raises(ValueError, match=r"The source's rows hold no hidden states; .* extract.hidden_states: true"):
        Affinity()(rows, dataclasses.replace(rows, hidden=None), 1)
    with pytest.raises(ValueError, match=r"The pivot's rows hold no hidden states"):
        Affinity()(dataclasses.replace(rows, hidden=None), rows, 1)
