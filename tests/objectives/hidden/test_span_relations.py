"""Relations of positions against a loop over anchors and pairs, against their least value, and what must not change them."""

import math

import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import SpanRelations
from tests.helpers.hidden_rows import random_states, rotation, rows_with

WINDOW = {"random": 0, "window": 3}


def by_loop(mine, theirs, options):
    """The definition for one example, without random context."""
    cosine = torch.nn.functional.cosine_similarity
    found = []
    for a in range(len(mine)):
        context = [i for d in range(-options.window, options.window + 1) if d and 0 <= (i := a + d) < len(mine)]
        s, t = ([cosine(h[a], h[i], dim=0).item() for i in context] for h in (mine, theirs))
        margin = sum(
            max(0.0, options.delta - (s[i] - s[j]))
            for i in range(len(t))
            for j in range(len(t))
            if t[i] > t[j] + options.delta
        )
        p, q = ([math.exp(x / options.temperature) for x in scores] for scores in (t, s))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        kl = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
        found.append(options.rank * margin + options.distribution * kl)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("rows", [1, 2, 3, 12])
@pytest.mark.parametrize("parts", [(1, 0), (0, 1), (0.5, 2)])
def test_values_are_those_of_the_loop(rows, parts):
    options = SpanRelations(**WINDOW, rank=parts[0], distribution=parts[1])
    mine, theirs = random_states(rows, 5), random_states(rows, 8, seed=1)
    torch.testing.assert_close(options(rows_with(mine), rows_with(theirs)), by_loop(mine, theirs, options))


def test_rotations_lengths_and_widths_change_nothing():
    mine, theirs = random_states(9, 6), random_states(9, 4, seed=1)
    term = SpanRelations()
    before = term(rows_with(mine), rows_with(theirs))
    scaled = mine @ rotation(6) * torch.rand(9, 1, dtype=torch.float64).add(0.1)
    wider = torch.cat([theirs, torch.zeros(9, 3, dtype=theirs.dtype)], dim=1) @ rotation(7)
    torch.testing.assert_close(term(rows_with(scaled), rows_with(wider)), before)
    assert before.min() > 0


def test_the_margins_are_zero_exactly_where_the_pivot_orders_what_the_source_tells_apart():
    mine, theirs = random_states(9, 6), random_states(9, 4, seed=1)
    ranks = SpanRelations(distribution=0, delta=0.2, **WINDOW)
    assert (ranks(rows_with(theirs @ rotation(4)), rows_with(theirs)) < 1e-12).all()
    assert ranks(rows_with(mine), rows_with(theirs)).max() > 0.2
    indifferent = ranks(rows_with(torch.ones(9, 6, dtype=torch.float64)), rows_with(theirs))
    pairs = indifferent / 0.2  # every pair that the source tells apart lacks the whole margin
    torch.testing.assert_close(pairs, pairs.round())
    assert pairs.max() >= 3


def test_the_random_context_is_other_rows_of_the_same_example():
    term = SpanRelations(window=0, random=50)
    rows = rows_with(random_states(12, 3), torch.tensor([0] * 7 + [1] * 4 + [2]))
    context, there = term._context(rows)
    same = rows.example[context] == rows.example[:, None]
    assert (same | ~there).all()
    assert (context != torch.arange(12)[:, None])[there].all()
    assert there[:11].all()
    assert not there[11].any()  # an example of one row
    for row in range(7):
        assert set(context[row].tolist()) == set(range(7)) - {row}


def test_random_context_is_drawn_anew_at_each_step_unless_it_is_fixed(total_at_step):
    rows = rows_with(random_states(40, 6)), rows_with(random_states(40, 4, seed=1))
    fresh, fixed = SpanRelations(window=0), SpanRelations(window=0, fresh=False)
    each = [total_at_step(fresh, step, *rows) for step in (0, 1, 1)]
    assert not torch.equal(each[0], each[1])
    assert torch.equal(each[1], each[2])
    assert torch.equal(each[1], SpanRelations(window=0, seed=1)(*rows).sum())
    assert torch.equal(total_at_step(fixed, 0, *rows), total_at_step(fixed, 1, *rows))


def test_too_small_a_context_is_refused():
    with pytest.raises(ValidationError, match=r"window: 0 needs random >= 2: relations are between two positions"):
        SpanRelations(window=0, random=1)
