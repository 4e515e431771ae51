"""Perception against the dense formula, and what each column may be without changing it."""

from __future__ import annotations

import pytest
import torch

from fusion.objectives import LumiNet
from fusion.objectives.token.luminet import perceive
from tests.helpers.mapped_rows import mapped
from tests.helpers.rows import as_mapped, query, rows_of


def dense(mine, theirs, temperature, alpha, eps=1e-5):
    """The published formula on whole matrices [rows, classes]."""
    q, p = (
        ((z - z.mean(0)) / (z.var(0, correction=0) + eps).sqrt() / temperature).log_softmax(-1) for z in (mine, theirs)
    )
    return alpha**2 * (p.exp() * (p - q)).sum(-1)


def test_with_all_columns_it_is_the_published_formula_on_log_probabilities():
    mine, theirs = torch.randn(2, 40, 13, dtype=torch.float64) * 2
    source = as_mapped(rows_of(theirs, 13))
    ours = LumiNet(temperature=4.0, alpha=3.0)(query(mine, source.ids, source), source)
    torch.testing.assert_close(ours, dense(mine.log_softmax(-1), theirs.log_softmax(-1), 4.0, 3.0))


def test_a_rows_constant_would_change_it_were_it_not_removed_first():
    mine, theirs = torch.randn(2, 40, 13, dtype=torch.float64)
    shifted = mine + torch.randn(40, 1).double() * 5
    source = as_mapped(rows_of(theirs, 13))
    assert not torch.allclose(dense(shifted, theirs, 1.0, 1.0), dense(mine, theirs, 1.0, 1.0), rtol=0.1)
    ours = [LumiNet()(query(logits, source.ids, source), source) for logits in (mine, shifted)]
    torch.testing.assert_close(*ours)


def everywhere(M, U):
    return torch.arange(U).expand(M, U), torch.ones(M, U, dtype=torch.bool)


def test_each_column_has_mean_zero_and_variance_one():
    values = torch.randn(40, 7, dtype=torch.float64) * 3 + 5
    found = perceive(values, *everywhere(40, 7))
    assert found.mean(0).abs().max() < 1e-12
    variance = values.var(0, correction=0)
    torch.testing.assert_close(found.var(0, correction=0), variance / (variance + 1e-5))


def test_a_positive_factor_and_a_constant_on_a_column_change_nothing():
    values, at = torch.randn(40, 7, dtype=torch.float64), everywhere(40, 7)
    moved = values * torch.rand(7).double().add(0.1) + torch.randn(7).double()
    torch.testing.assert_close(perceive(moved, *at, eps=0.0), perceive(values, *at, eps=0.0))


def test_one_row_gives_zeros_and_no_gradient():
    values = torch.randn(1, 7, dtype=torch.float64, requires_grad=True)
    for eps in (0.0, 1e-5):
        found = perceive(values, *everywhere(1, 7), eps=eps)
        assert (found == 0).all()
        assert torch.autograd.grad(found.sum(), values)[0].abs().max() == 0


def test_only_observed_entries_enter_a_columns_statistics():
    pivot, source = mapped(200, 6, 12)
    ours = LumiNet(rows=8)(pivot, source)
    table = torch.full((2, 200, 12), torch.nan, dtype=torch.float64)
    for m in range(200):
        for k, id in enumerate(source.ids[m].tolist()):
            if id >= 0:
                table[0, m, id], table[1, m, id] = pivot.logprobs[m, k], source.logprobs[m, k]
    seen = ~table[0].isnan()
    used = seen & (seen.sum(0) >= 8)
    scores = []
    for side in table:
        z = torch.full_like(side, -torch.inf)
        for u in range(12):
            column = side[seen[:, u], u]
            z[used[:, u], u] = ((column - column.mean()) / (column.var(correction=0) + 1e-5).sqrt())[
                used[seen[:, u], u]
            ] / 0.7
        scores.append(z)
    q, p = (z.log_softmax(-1) for z in scores)
    known = 4 * torch.where(used, p.exp() * (p - q), 0).nan_to_num().sum(-1)
    torch.testing.assert_close(ours, known)


def test_fewer_rows_than_a_column_needs_teach_nothing():
    pivot, source = mapped(7, 6, 12)
    assert (LumiNet()(pivot, source) == 0).all()


def test_only_the_most_frequent_columns_take_part():
    logits = torch.randn(40, 13, dtype=torch.float64)
    source = as_mapped(rows_of(torch.randn(40, 13, dtype=torch.float64), 6))
    pivot = query(logits, source.ids, source)
    few, all_of_them = LumiNet(columns=3)(pivot, source), LumiNet(columns=50)(pivot, source)
    assert (few == 0).any()
    assert not torch.allclose(few, all_of_them)


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_the_factor_is_alpha_squared(alpha):
    pivot, source = mapped(60, 6, 12)
    torch.testing.assert_close(LumiNet(alpha=alpha)(pivot, source), alpha**2 * LumiNet(alpha=1.0)(pivot, source))
