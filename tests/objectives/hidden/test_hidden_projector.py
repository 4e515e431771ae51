"""The projector at its start and after training, and the weight by disparity against numpy."""

import numpy as np
import pytest
import torch

from fusion.objectives import HiddenProjector, ModuleSpec
from fusion.objectives.hidden.hidden_projector import disparity
from tests.helpers.hidden_rows import random_states, rows_with


def module(pivot, source):
    return HiddenProjector().build_module(ModuleSpec(pivot, source, 100, lambda _: None, lambda: None)).double()


def test_equal_states_of_equal_width_give_zero_at_the_start_and_only_they():
    x = random_states(9, 6)
    for quantile in (None, 0.9):
        term = HiddenProjector(disparity=quantile)
        assert torch.equal(term(rows_with(x), rows_with(x), module(6, 6)), torch.zeros(9, dtype=torch.float64))
        assert (term(rows_with(x), rows_with(random_states(9, 6, seed=1)), module(6, 6)) > 0).all()


def test_values_are_the_mean_square_over_the_sources_width():
    x, y, made = random_states(9, 6), random_states(9, 4, seed=1), module(6, 4)
    known = (made(x).detach().numpy() - y.numpy()) ** 2
    found = HiddenProjector()(rows_with(x), rows_with(y), made)
    np.testing.assert_allclose(found.detach().numpy(), known.mean(1))


@pytest.mark.parametrize("width", [4, 6])
def test_a_trained_projector_finds_a_rotated_and_bent_state(width):
    torch.manual_seed(0)
    x = random_states(200, 6)
    y, made = (x @ random_states(6, width, seed=1)).tanh(), module(6, width)
    optimizer = torch.optim.Adam(made.parameters(), 0.03)
    losses = []
    for _ in range(150):
        loss = HiddenProjector()(rows_with(x), rows_with(y), made).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    assert all((weight.grad != 0).any() for weight in made.parameters())


def test_disparity_is_one_minus_cosine_over_a_quantile_of_the_example():
    example = torch.tensor([0] * 12 + [1] * 5 + [3])
    x, y = random_states(18, 6), random_states(18, 6, seed=1)
    y[3] = x[3]
    found = disparity(x, y, rows_with(x, example), 0.75)
    cosine = (x * y).sum(1) / x.norm(dim=1) / y.norm(dim=1)
    for number in (0, 1, 3):
        apart = 1 - cosine[example == number].numpy()
        np.testing.assert_allclose(
            found[example == number], np.clip(apart / np.quantile(apart, 0.75), 0, 1), atol=1e-12
        )
    assert found[3].item() == pytest.approx(0, abs=1e-12)
    assert (found == 1).sum() >= 5


def test_disparity_weighs_values_and_gets_no_gradient():
    x, y = random_states(9, 6).requires_grad_(), random_states(9, 6, seed=1)
    plain, weighed = (HiddenProjector(disparity=d)(rows_with(x), rows_with(y)) for d in (None, 0.9))
    weight = disparity(x.detach(), y, rows_with(x), 0.9)
    torch.testing.assert_close(weighed, plain * weight)
    known = torch.autograd.grad((plain * weight).sum(), x, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(weighed.sum(), x)[0], known)


def test_the_literal_mask_of_the_paper_is_zero():
    """Why it is left out: the least of a sum of m times disparities plus the size of m, m in [0, 1], is m = 0."""
    apart = 1 - torch.rand(9, dtype=torch.float64)
    corners = torch.cartesian_prod(
        *[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 9
    )  # linear in m: least at a corner
    worth = (corners * apart).sum(1) + 0.1 * corners.sum(1)
    assert torch.equal(corners[worth.argmin()], torch.zeros(9, dtype=torch.float64))
