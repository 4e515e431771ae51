"""Directions of groups of logits, and of positions against each other."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from fusion.objectives import TopKContrastive, TopKDecoupled
from fusion.objectives.token.topkd import centred, misdirection, telling_apart
from tests.helpers.mapped_rows import mapped
from tests.helpers.rows import as_mapped, query, rows_of


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("top_k", [3, 5])
def test_the_decoupled_term_is_the_papers_plus_the_constant_that_makes_its_least_value_zero(top_k):
    mine, theirs = torch.randn(2, 9, 40, dtype=torch.float64)
    source = as_mapped(rows_of(theirs, 12))
    pivot = query(mine, source.ids, source)
    ours = TopKDecoupled(top_k=top_k, positive=0.7)(pivot, source)
    for m in range(9):
        a, b = (rows.logprobs[m] - rows.logprobs[m].mean() for rows in (pivot, source))
        papers = 1 - 0.7 * cosine(a[:top_k], b[:top_k]) - cosine(a[top_k:], b[top_k:])
        assert ours[m].item() == pytest.approx(papers - 1 + 0.7 + 1)


def test_with_whole_rows_the_least_likely_tokens_are_a_third_group():
    mine, theirs = torch.randn(2, 9, 40, dtype=torch.float64)
    source = as_mapped(rows_of(theirs, 40))
    pivot = query(mine, source.ids, source)
    objective = TopKDecoupled(top_k=4, negative=0.5)
    assert objective.required_top_k is None
    for m, value in enumerate(objective(pivot, source).tolist()):
        a, b = (rows.logprobs[m] - rows.logprobs[m].mean() for rows in (pivot, source))
        groups = [(1.0, slice(0, 4)), (1.0, slice(4, 36)), (0.5, slice(36, 40))]
        assert value == pytest.approx(sum(w * (1 - cosine(a[g], b[g])) for w, g in groups))


def test_a_factor_on_a_group_changes_nothing_and_a_constant_does():
    a, b = torch.randn(2, 20, 6, dtype=torch.float64)
    inside = torch.ones(20, 6, dtype=torch.bool)
    torch.testing.assert_close(misdirection(7 * a, b, inside), misdirection(a, b, inside))
    assert not torch.allclose(misdirection(a + 3, b, inside), misdirection(a, b, inside), rtol=0.1)
    torch.testing.assert_close(centred(a + 3, ~inside), centred(a, ~inside))


def test_the_least_value_is_reached_by_positive_multiples_alone():
    b = torch.randn(20, 6, dtype=torch.float64)
    inside = torch.ones(20, 6, dtype=torch.bool)
    assert misdirection(b * torch.rand(20, 1).double().add(0.1), b, inside).abs().max() < 1e-12
    assert (misdirection(b + 0.1 * torch.randn(20, 6).double(), b, inside) > 1e-6).all()
    torch.testing.assert_close(misdirection(-b, b, inside), torch.full((20,), 2.0, dtype=torch.float64))


def test_groups_with_fewer_than_three_entries_or_without_direction_are_left_out():
    a, b = torch.randn(2, 3, 6, dtype=torch.float64)
    few = torch.tensor([[True, True, False, False, False, False]]).expand(3, 6)
    assert (misdirection(a, b, few) == 0).all()
    assert (misdirection(a, torch.zeros_like(b), torch.ones(3, 6, dtype=torch.bool)) == 0).all()


def test_the_contrastive_term_is_the_mean_of_both_cross_entropies():
    pivot, source = mapped(12, 6, 15)
    table = torch.zeros(2, 12, 15, dtype=torch.float64)
    for m in range(12):
        kept = source.ids[m] >= 0
        for side, rows in zip(table, (pivot, source), strict=True):
            values = rows.logprobs[m, kept]
            side[m, source.ids[m, kept]] = values - values.mean()
    a, b = (side / side.norm(dim=-1, keepdim=True).clamp(min=1e-12) for side in table)
    alike, where = a @ b.T / 0.1, torch.arange(12)
    known = torch.nn.functional.cross_entropy(alike, where, reduction="none")
    known = (known + torch.nn.functional.cross_entropy(alike.T, where, reduction="none")) / 2
    torch.testing.assert_close(TopKContrastive()(pivot, source), known)


def test_telling_apart_does_not_care_which_model_is_which_and_is_log_n_where_all_are_alike():
    a, b = torch.randn(2, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(telling_apart(a, b, 0.3), telling_apart(b, a, 0.3))
    same = torch.ones(7, 4, dtype=torch.float64)
    torch.testing.assert_close(telling_apart(same, same, 0.3), torch.full((7,), math.log(7), dtype=torch.float64))


def test_with_many_positions_some_stand_for_all():
    pivot, source = mapped(30, 6, 15)
    values = TopKContrastive(rows=10)(pivot, source)
    chosen = torch.linspace(0, 29, 10).long()
    few = TopKContrastive()(*(dataclasses.replace(rows.select(chosen)) for rows in (pivot, source)))
    torch.testing.assert_close(values[chosen], 3 * few)
    assert (values > 0).sum() == 10
    torch.testing.assert_close(values.mean(), few.mean())
