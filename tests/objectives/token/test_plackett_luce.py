"""List-wise distillation against its definition, its special cases, and what is and is not its least value."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import pytest
import torch

from fusion.objectives import PlackettLuce
from fusion.objectives.token.plackett_luce import plackett_luce
from tests.helpers import reference_outcomes as slow
from tests.helpers.mapped_rows import agreeing, mapped
from tests.helpers.rows import as_mapped, query, rows_of


@pytest.mark.parametrize(("M", "K", "V"), [(30, 4, 11), (1, 1, 3), (40, 16, 257)])
@pytest.mark.parametrize("top_k", [None, 2])
def test_plackett_luce_matches_the_definition(M, K, V, top_k):
    pivot, source = mapped(M, K, V, unknown=0.3)
    ours = PlackettLuce(top_k=top_k)(pivot, source)
    torch.testing.assert_close(ours, slow.each_row(slow.gold_outcomes(pivot, source, top_k), slow.in_order))


def test_worth_on_the_first_item_alone_is_cross_entropy():
    logits = torch.randn(9, 7, dtype=torch.float64)
    worth = torch.zeros_like(logits)
    worth[:, 0] = 1
    torch.testing.assert_close(plackett_luce(worth, logits), -logits.log_softmax(-1)[:, 0])


def test_worth_everywhere_is_minus_the_log_probability_of_the_order_and_orders_add_up_to_one():
    logits = torch.randn(4, dtype=torch.float64)
    each = [
        torch.exp(-plackett_luce(torch.ones(1, 4).double(), logits[list(order)][None]))
        for order in permutations(range(4))
    ]
    torch.testing.assert_close(torch.stack(each).sum(), torch.ones((), dtype=torch.float64))


def test_the_gradient_is_worth_times_what_is_left_minus_the_chosen_and_sums_to_zero():
    logits = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    worth = torch.rand(5, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(plackett_luce(worth, logits).sum(), logits)
    known = torch.zeros_like(logits)
    for k in range(6):
        left = torch.zeros_like(logits)
        left[:, k:] = logits.detach()[:, k:].softmax(-1)
        left[:, k] -= 1
        known += worth[:, k : k + 1] * left
    torch.testing.assert_close(gradient, known)
    assert gradient.sum(-1).abs().max() < 1e-12


def test_it_is_convex_along_any_line():
    worth, a, b = torch.rand(50, 6).double(), torch.randn(50, 6).double() * 3, torch.randn(50, 6).double() * 3
    middle = plackett_luce(worth, (a + b) / 2)
    assert (middle <= (plackett_luce(worth, a) + plackett_luce(worth, b)) / 2 + 1e-12).all()


def test_the_first_terms_of_the_list_with_a_tail_are_those_of_the_whole_vocabulary():
    mine, theirs = torch.randn(2, 8, 30, dtype=torch.float64) * 2
    source, few = (as_mapped(rows_of(theirs, k, theirs.argmax(-1))) for k in (30, 4))
    about = dataclasses.replace(source, token=theirs.argmax(-1))
    whole, cut = (PlackettLuce()(query(mine, rows.ids, about), rows) for rows in (source, few))
    order = source.ids
    worth = torch.cat([source.logprobs.exp()[:, :4], torch.zeros(8, 26).double()], dim=1)
    torch.testing.assert_close(cut, plackett_luce(worth, mine.gather(1, order)))
    left = 1 - few.logprobs.exp().sum(-1)
    dropped = plackett_luce(source.logprobs.exp() * (torch.arange(30) >= 4), mine.gather(1, order))
    torch.testing.assert_close(whole, cut + dropped)
    torch.testing.assert_close(left, (source.logprobs.exp() * (torch.arange(30) >= 4)).sum(-1))


def test_renaming_the_tokens_changes_nothing():
    pivot, source = mapped(20, 6, 40)
    names = torch.randperm(40)

    def renamed(rows):
        ids = torch.where(rows.ids < 0, -1, names[rows.ids])
        return dataclasses.replace(rows, ids=ids, token=names[rows.token])

    torch.testing.assert_close(PlackettLuce()(renamed(pivot), renamed(source)), PlackettLuce()(pivot, source))


def test_equal_probabilities_are_ordered_by_id_so_that_runs_repeat():
    tied = torch.zeros(1, 5, dtype=torch.float64)
    mine = torch.randn(1, 5, dtype=torch.float64)
    source = as_mapped(rows_of(tied, 5, torch.tensor([4])))
    shuffled = dataclasses.replace(source, ids=source.ids[:, torch.randperm(5)])
    values = [PlackettLuce(top_k=3)(query(mine, rows.ids, rows), rows) for rows in (source, shuffled)]
    torch.testing.assert_close(*values)


def test_it_is_not_least_where_pivot_and_source_agree():
    """The true token comes first whatever the source thinks, so a pivot that is surer of it than the source pays less."""
    logits = torch.randn(9, 20, dtype=torch.float64)
    pivot, source = agreeing(logits, 6)
    surer = logits + 2.0 * torch.nn.functional.one_hot(source.token, 20)
    assert (PlackettLuce()(query(surer, source.ids, source), source) < PlackettLuce()(pivot, source)).any()
