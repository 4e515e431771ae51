"""The mixture of sources against its definition on whole rows, and what it becomes for one source."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import ForwardKL, Mixture, ReverseKL
from fusion.objectives.token.mixture import mixture
from tests.helpers.rows import as_mapped, query, rows_of


def sources(M: int, V: int, k: int, count: int = 3):
    """Whole logits of some sources, their rows, and shares of which some are 0."""
    logits = torch.randn(count, M, V, dtype=torch.float64) * 2
    rows = {f"s{i}": as_mapped(rows_of(each, k)) for i, each in enumerate(logits)}
    share = torch.rand(count, M, dtype=torch.float64) * (torch.rand(count, M) < 0.7)
    share[0] += 0.1
    return logits, rows, share / share.sum(0)


def dense(rows, V):
    """Probabilities by id, 0 where a row has none."""
    filled = torch.zeros(len(rows), V + 1, dtype=torch.float64)
    return filled.scatter_add(1, torch.where(rows.ids < 0, V, rows.ids), rows.logprobs.exp())[:, :V]


def test_with_whole_rows_it_is_the_sum_of_share_times_probability():
    logits, rows, share = sources(7, 11, 11)
    known = (share[:, :, None] * logits.softmax(-1)).sum(0)
    one = mixture(rows, share)
    torch.testing.assert_close(dense(one, 11), known)
    token = rows["s0"].token
    torch.testing.assert_close(one.pivot_token_logprob.exp(), known.gather(1, token[:, None])[:, 0])
    assert all(len(set(ids)) == 11 for ids in [[i for i in row if i >= 0] for row in one.ids.tolist()])


def test_with_some_entries_none_is_above_the_true_mixture_and_what_is_left_over_is_not_below():
    logits, rows, share = sources(20, 30, 4)
    known = (share[:, :, None] * logits.softmax(-1)).sum(0)
    found = dense(mixture(rows, share), 30)
    assert (found <= known + 1e-12).all()
    assert ((found > 0).sum(-1) > 4).any()
    torch.testing.assert_close(
        found.sum(-1), (share * torch.stack([dense(r, 30).sum(-1) for r in rows.values()])).sum(0)
    )


@pytest.mark.parametrize("objective", [ForwardKL(), ForwardKL(top_k=2), ReverseKL()])
def test_the_mixture_of_one_source_is_that_source(objective):
    _, rows, _ = sources(9, 20, 5)
    mine, source = torch.randn(9, 20, dtype=torch.float64), rows["s1"]
    pivot = query(mine, source.ids, source)
    alone = Mixture(objective=objective)(pivot, {"s1": source}, torch.ones(1, 9, dtype=torch.float64))
    torch.testing.assert_close(alone, objective(pivot, source))


def test_a_source_with_no_share_changes_nothing_whatever_its_rows_hold():
    _, rows, _ = sources(9, 20, 5)
    mine = torch.randn(9, 20, dtype=torch.float64)
    share = torch.stack([torch.ones(9), torch.zeros(9), torch.zeros(9)]).double()
    silent = dataclasses.replace(rows["s1"], pivot_token_logprob=torch.full((9,), torch.nan))

    def value(second):
        given = rows | {"s1": second}
        ids = torch.cat([each.ids for each in given.values()], dim=1)
        return Mixture()(query(mine, ids, rows["s0"]), given, share)

    torch.testing.assert_close(value(silent), value(rows["s2"]))
    assert mixture(rows | {"s1": silent}, share).pivot_token_logprob.isfinite().all()


def test_teaching_the_mixture_is_never_dearer_than_teaching_each_source():
    """KL is convex in its first argument: pulled to one distribution, the pivot pays less than to several."""
    _, rows, share = sources(40, 30, 30)
    mine = torch.randn(40, 30, dtype=torch.float64)
    ids = torch.cat([each.ids for each in rows.values()], dim=1)
    one = Mixture()(query(mine, ids, rows["s0"]), rows, share)
    each = torch.stack([ForwardKL()(query(mine, row.ids, row), row) for row in rows.values()])
    assert (one <= (share * each).sum(0) + 1e-12).all()


def test_a_weight_inside_the_mixture_is_refused():
    with pytest.raises(ValidationError, match="set weight on the mixture"):
        Mixture(objective=ForwardKL(weight=0.5))
