"""Mean squared differences of centred logits: the definition, and that no constant counts."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from fusion.objectives import MSE
from tests.helpers import reference_outcomes as slow
from tests.helpers.mapped_rows import agreeing, mapped
from tests.helpers.rows import query


@pytest.mark.parametrize(("M", "K", "V"), [(30, 4, 11), (1, 1, 3), (20, 10, 257)])
@pytest.mark.parametrize("top_k", [None, 3])
def test_the_value_is_that_of_the_definition(M, K, V, top_k):
    pivot, source = mapped(M, K, V)

    def definition(p, q):
        names = [name for name in p if name != "other"]
        logits = [[math.log(side[name]) for name in names] for side in (p, q)]
        theirs, mine = ([value - sum(side) / len(side) for value in side] for side in logits)
        return sum((a - b) ** 2 for a, b in zip(theirs, mine, strict=True)) / len(names) if names else 0.0

    known = slow.each_row(slow.outcomes(pivot, source, top_k or K), definition)
    torch.testing.assert_close(MSE(top_k=top_k)(pivot, source), known)


def test_a_constant_over_the_entries_of_either_side_changes_nothing_though_raw_logits_would():
    pivot, source = mapped(20, 6, 40)
    constant = torch.randn(20, 1, dtype=torch.float64)
    for side in ("pivot", "source"):
        rows = {"pivot": pivot, "source": source}
        rows[side] = dataclasses.replace(rows[side], logprobs=rows[side].logprobs + constant)
        torch.testing.assert_close(MSE()(**rows), MSE()(pivot, source))
        there = ~source.logprobs.isneginf()
        raw, moved = (
            (p - q)[there] ** 2 for p, q in ((pivot.logprobs, source.logprobs), [r.logprobs for r in rows.values()])
        )
        assert abs(raw.mean() - moved.mean()) > 1e-2


def test_it_is_zero_where_the_pivot_differs_by_more_mass_on_the_entries_as_a_whole():
    logits = torch.randn(9, 20, dtype=torch.float64)
    _, source = agreeing(logits, 6)
    elsewhere = logits.scatter_add(1, source.ids, torch.full((9, 6), 2.0, dtype=torch.float64))
    assert MSE()(query(elsewhere, source.ids, source), source).abs().max() < 1e-12
    assert MSE()(query(logits * 2, source.ids, source), source).min() > 1e-3


def test_one_entry_says_nothing():
    pivot, source = mapped(9, 1, 20, empty=0.0)
    assert MSE()(pivot, source).abs().max() == 0
    assert MSE().weight == 0.1
