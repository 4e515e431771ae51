"""Ids that say the same are one event: rows are those of a model that has one id for it, and so are gradients."""

import pytest
import torch

from fusion.core.rows import Positions
from fusion.models.head import Head, first_of_event

V, STOP, OTHERS = 12, 3, (12, 13)  # OTHERS come behind the vocabulary of the model with one id
SHARES = torch.tensor([0.5, 0.2, 0.3]).log()


def heads(**settings):
    """A model with one id for the end, and one that divides its probability among three."""
    torch.manual_seed(1)
    one = torch.nn.Linear(6, V)
    three = torch.nn.Linear(6, V + 2)
    with torch.no_grad():
        three.weight.copy_(torch.cat([one.weight, one.weight[[STOP, STOP]]]))
        three.bias.copy_(torch.cat([one.bias, one.bias[[STOP, STOP]]]))
        three.bias[[STOP, *OTHERS]] += SHARES
    return Head(one, V, **settings), Head(three, V + 2, **settings).with_stop_ids([STOP, *OTHERS])


def rows(head, hidden, token, k=4):
    positions = Positions(
        prefix=torch.arange(len(token)), example=torch.zeros(len(token), dtype=torch.int), token=token
    )
    asked = torch.stack([first_of_event(token, (STOP, *OTHERS)), torch.full_like(token, STOP)], dim=1)
    return head.rows(hidden, positions, k, asked)


@pytest.mark.parametrize("settings", [{}, {"chunk": 2}, {"budget": 1}], ids=str)
def test_ids_that_mean_the_same_change_neither_rows_nor_gradients(settings):
    one, three = heads(**settings)
    hidden = torch.randn(5, 6)
    tokens = torch.tensor([0, STOP, 12, 7, 13])  # the end in each of its ways
    found = []
    for head, token in ((one, first_of_event(tokens, (STOP, *OTHERS))), (three, tokens)):
        states = hidden.clone().requires_grad_()
        its, asked = rows(head, states, token)
        loss = (
            its.gold.sum()
            + (its.logprobs * torch.arange(4)).sum()
            + asked.sum()
            + its.mean.sum()
            + its.std.square().sum()
        )
        found.append((its, asked, torch.autograd.grad(loss, states)[0]))
    (a, asked_a, gradient_a), (b, asked_b, gradient_b) = found
    assert torch.equal(a.ids, b.ids)
    for name in ("logprobs", "gold", "mean", "std"):
        torch.testing.assert_close(getattr(b, name), getattr(a, name))
    torch.testing.assert_close(asked_b, asked_a)
    torch.testing.assert_close(gradient_b, gradient_a)


def test_without_a_second_id_nothing_is_another(monkeypatch):
    monkeypatch.setattr("fusion.models.head.stop_event.NEVER", None)
    one, _ = heads()
    same = one.with_stop_ids([STOP, STOP, 99])
    assert same.stop_ids == (STOP,)
    hidden, token = torch.randn(3, 6), torch.tensor([1, STOP, 2])
    assert torch.equal(rows(same, hidden, token)[0].logprobs, rows(one, hidden, token)[0].logprobs)


def test_a_frozen_model_has_the_same_rows():
    _, three = heads()
    hidden, token = torch.randn(4, 6), torch.tensor([1, STOP, 12, 2])
    with torch.inference_mode():
        plain, frozen = (rows(head, hidden, token)[0] for head in (three, three.for_frozen_model()))
    torch.testing.assert_close(frozen.std, plain.std)
    torch.testing.assert_close(frozen.mean, plain.mean)


def test_every_probability_is_there_once():
    _, three = heads()
    hidden, token = torch.randn(4, 6), torch.tensor([1, STOP, 12, 2])
    whole = rows(three, hidden, token, k=V + 2)[0]
    torch.testing.assert_close(whole.logprobs.exp().sum(-1), torch.ones(4))
    assert bool((whole.logprobs[:, :V] > -50).all())
    assert set(whole.ids[0, V:].tolist()) == set(OTHERS)
