"""Margins and divergence over a list of tokens against slow loops, and when each is least."""

from __future__ import annotations

import pytest
import torch

from fusion.objectives import LLP
from tests.helpers import reference_outcomes as slow
from tests.helpers.mapped_rows import agreeing, mapped
from tests.helpers.rows import as_mapped, query, rows_of


@pytest.mark.parametrize(("M", "K", "V"), [(30, 4, 11), (1, 1, 3), (20, 10, 257)])
@pytest.mark.parametrize(("delta", "temperature"), [(0.5, 1.0), (0.0, 3.0)])
def test_both_parts_match_their_definitions(M, K, V, delta, temperature):
    pivot, source = mapped(M, K, V)
    parts = {"rank": LLP(delta=delta, distribution=0.0), "distribution": LLP(temperature=temperature, rank=0.0)}
    known = slow.each_row(slow.outcomes(pivot, source, 10), lambda p, q: slow.margins(p, q, delta))
    torch.testing.assert_close(parts["rank"](pivot, source), known)
    known = slow.each_row(
        slow.outcomes(pivot, source, 10), lambda p, q: slow.over_list(p, q, temperature) if len(p) > 1 else 0.0
    )
    torch.testing.assert_close(parts["distribution"](pivot, source), known)


def test_margins_are_zero_once_every_pair_has_its_margin_and_only_then():
    theirs = torch.tensor([[4.0, 2.0, 0.0, -9.0, -9.0]], dtype=torch.float64)
    source, rank = as_mapped(rows_of(theirs, 3)), LLP(delta=0.5, distribution=0.0)
    for spread, zero in ((0.25, False), (0.5, True), (50.0, True)):
        mine = torch.tensor([[2.0, 1.0, 0.0, -9.0, -9.0]], dtype=torch.float64) * spread
        assert (rank(query(mine, source.ids, source), source).item() == pytest.approx(0, abs=1e-12)) == zero


def test_pairs_that_the_source_does_not_tell_apart_take_no_part():
    source = as_mapped(rows_of(torch.tensor([[1.0, 0.9, 0.8, -5.0]], dtype=torch.float64), 3))
    mine = torch.randn(1, 4, dtype=torch.float64)
    assert LLP(delta=0.5, distribution=0.0)(query(mine, source.ids, source), source).item() == 0


def test_the_divergence_is_zero_where_the_logits_differ_by_a_constant_over_the_list():
    logits = torch.randn(9, 20, dtype=torch.float64)
    _, source = agreeing(logits, 6)
    elsewhere = logits.clone()
    elsewhere.scatter_add_(
        1, source.ids, torch.full((9, 6), 2.0, dtype=torch.float64)
    )  # more mass on the list as a whole
    assert LLP(rank=0.0)(query(elsewhere, source.ids, source), source).abs().max() < 1e-12
