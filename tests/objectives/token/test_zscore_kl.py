"""KL of standardised logits against torch on whole rows, and what it cannot see."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fusion.objectives import ZScoreKL
from tests.helpers.mapped_rows import mapped
from tests.helpers.rows import as_mapped, query, rows_of


def z(logits):
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True, correction=0) + 1e-7)


def test_with_whole_rows_it_is_the_published_term():
    mine, theirs = torch.randn(2, 9, 13, dtype=torch.float64) * 3
    source = as_mapped(rows_of(theirs, 13))
    known = torch.nn.functional.kl_div(
        z(mine).log_softmax(-1), z(theirs).log_softmax(-1), reduction="none", log_target=True
    )
    for over in ("vocabulary", "support"):
        ours = ZScoreKL(over=over)(query(mine, source.ids, source), source)
        torch.testing.assert_close(ours, known.sum(-1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("over", ["vocabulary", "support"])
@pytest.mark.parametrize("K", [3, 20])
def test_a_positive_factor_and_a_constant_on_either_side_change_nothing(over, K):
    mine, theirs = torch.randn(2, 9, 20, dtype=torch.float64)
    source = as_mapped(rows_of(theirs, K))
    moved = as_mapped(rows_of(theirs * 0.3 - 2, K))
    values = ZScoreKL(over=over)(query(mine, source.ids, source), source)
    other = ZScoreKL(over=over)(query(mine * 5 + 1, moved.ids, moved), moved)
    torch.testing.assert_close(other, values, rtol=1e-5, atol=1e-7)
    assert (values > 1e-4).all()


@pytest.mark.parametrize("over", ["vocabulary", "support"])
def test_it_is_zero_exactly_where_one_row_is_such_a_transform_of_the_other(over):
    logits = torch.randn(9, 20, dtype=torch.float64)
    source = as_mapped(rows_of(logits, 6))
    assert ZScoreKL(over=over)(query(4 * logits + 3, source.ids, source), source).abs().max() < 1e-9
    assert (ZScoreKL(over=over)(query(logits**3, source.ids, source), source) > 1e-4).all()


def test_over_the_support_empty_entries_do_not_count():
    pivot, source = mapped(30, 6, 40)
    ours = ZScoreKL(over="support")(pivot, source)
    for m in range(30):
        kept = source.ids[m] >= 0
        sides = [rows.logprobs[m, kept] for rows in (pivot, source)]
        if kept.sum() < 2:
            assert ours[m] == 0
            continue
        q, p = (z(side[None])[0].log_softmax(-1) for side in sides)
        torch.testing.assert_close(ours[m], (p.exp() * (p - q)).sum(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("side", ["pivot", "source"])
def test_unknown_moments_are_refused(side):
    pivot, source = mapped(4, 3, 9)
    rows = {"pivot": pivot, "source": source}
    rows[side] = dataclasses.replace(rows[side], std=torch.full((4,), torch.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match=f"zscore_kl .*4 of 4 {side} rows.*Set another input"):
        ZScoreKL()(rows["pivot"], rows["source"])
    assert ZScoreKL(over="support")(rows["pivot"], rows["source"]).isfinite().all()
