"""Forward KL against a slow reference, torch's own KL, and distributions whose divergence is known."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal, getcontext
from itertools import pairwise

import pytest
import torch

from fusion.core.rows import EntryRows, LogitRows, MappedRows
from fusion.core.tail import log1mexp
from fusion.objectives import ForwardKL
from tests.helpers import reference
from tests.helpers.rows import as_mapped, query, random_rows, rows_of

TAILS = ["bucket", "residual_to_gold", "none"]


def mapped(M: int, K: int, V: int, dtype=torch.float64, empty: float = 0.3) -> tuple[LogitRows, MappedRows]:
    """A pivot and a source about the same ids, a share of them empty; NaN in the pivot where an entry is."""
    source = random_rows(M, K, V, dtype, seed=1)
    about = random_rows(M, 0, V, dtype, seed=2)
    about = dataclasses.replace(about, token=torch.where(torch.arange(M) % 2 == 0, source.ids[:, 0], about.token))
    gaps = torch.rand(M, K, generator=torch.Generator().manual_seed(3)) < empty
    logprobs = source.logprobs.masked_fill(gaps, -torch.inf)
    ids = source.ids.masked_fill(gaps & (torch.arange(K) % 2 == 1), -1)  # either sign of emptiness is enough
    logits = torch.randn(M, V, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(dtype) * 2
    pivot = query(logits, ids, about)
    pivot = dataclasses.replace(pivot, logprobs=pivot.logprobs.masked_fill(gaps, torch.nan))
    return pivot, as_mapped(source, logprobs=logprobs, ids=ids)


@pytest.mark.parametrize(("M", "K", "V"), [(5, 4, 11), (1, 1, 3), (123, 16, 257), (4, 3, 4)])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("top_k", [None, 1, 3, 100])
def test_forward_kl_matches_the_definition(M, K, V, tail, top_k):
    pivot, source = mapped(M, K, V)
    ours = ForwardKL(tail=tail, top_k=top_k)(pivot, source)
    torch.testing.assert_close(ours, reference.forward_kl(pivot, source, tail, top_k))


@pytest.mark.parametrize("tail", ["bucket", "residual_to_gold"])
@pytest.mark.parametrize("K", [1, 4, 30, 50])
def test_forward_kl_is_never_negative(tail, K):
    pivot, source = mapped(200, K, 50)
    assert (ForwardKL(tail=tail)(pivot, source) >= 0).all()


@pytest.mark.parametrize("tail", ["bucket", "none"])
def test_forward_kl_is_zero_where_pivot_and_source_agree(tail):
    logits = torch.randn(9, 20, dtype=torch.float64)
    source = as_mapped(rows_of(logits, 6))
    values = ForwardKL(tail=tail)(query(logits, source.ids, source), source)
    torch.testing.assert_close(values, torch.zeros_like(values))


def test_residual_to_gold_is_zero_where_the_pivot_has_the_residual_on_the_gold_token():
    p = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.1]], dtype=torch.float64)
    source = as_mapped(rows_of(p.log(), 2))
    believed = torch.tensor([[0.5, 0.2, 0.3, 1e-12, 1e-12]], dtype=torch.float64)
    about = dataclasses.replace(source, token=torch.tensor([2]))
    values = ForwardKL(tail="residual_to_gold")(query(believed.log(), source.ids, about), source)
    torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-9, rtol=0)


def test_the_whole_vocabulary_gives_torchs_kl():
    mine, theirs = torch.randn(7, 13, dtype=torch.float64), torch.randn(7, 13, dtype=torch.float64)
    source = as_mapped(rows_of(theirs, 13))
    ours = ForwardKL(tail="none")(query(mine, source.ids, source), source)
    log_q, log_p = mine.log_softmax(-1), theirs.log_softmax(-1)
    torch.testing.assert_close(
        ours, torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    )


def test_a_worked_example():
    source = as_mapped(rows_of(torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log(), 1))
    pivot = query(torch.tensor([[0.25, 0.7, 0.05]], dtype=torch.float64).log(), source.ids, source)
    known = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    assert ForwardKL()(pivot, source).item() == pytest.approx(known)
    assert ForwardKL(tail="none")(pivot, source).item() == pytest.approx(0.5 * math.log(2))


def test_fewer_entries_never_raise_the_divergence_with_a_bucket():
    pivot, source = mapped(60, 12, 40)
    values = [ForwardKL(top_k=k)(pivot, source) for k in range(1, 13)]
    assert all((fewer <= more + 1e-12).all() for fewer, more in pairwise(values))


@pytest.mark.parametrize("tail", TAILS)
def test_the_largest_entries_are_used_whatever_their_order(tail):
    pivot, source = mapped(20, 6, 40)
    order = torch.randperm(6)

    def reordered(rows: EntryRows) -> EntryRows:
        return dataclasses.replace(rows, logprobs=rows.logprobs[:, order], ids=rows.ids[:, order])

    objective = ForwardKL(tail=tail, top_k=3)
    torch.testing.assert_close(objective(reordered(pivot), reordered(source)), objective(pivot, source))


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharp", [20.0, 60.0, 500.0])
def test_kept_mass_that_rounds_to_one_leaves_value_and_gradient_finite(tail, dtype, sharp):
    logits = torch.zeros(3, 8, dtype=dtype)
    logits[:, 0] = sharp
    logits.requires_grad_()
    source = as_mapped(random_rows(3, 4, 8, dtype))
    values = ForwardKL(tail=tail)(query(logits, source.ids, source), source)
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad.isfinite().all()
    certain = as_mapped(query(logits.detach(), source.ids, source))
    assert ForwardKL(tail=tail)(query(torch.randn(3, 8, dtype=dtype), source.ids, source), certain).isfinite().all()


@pytest.mark.parametrize("tail", TAILS)
def test_a_row_without_any_mapped_entry_has_a_finite_value_and_gradient(tail):
    pivot, source = mapped(3, 4, 8)
    nothing = dataclasses.replace(
        source, ids=torch.full_like(source.ids, -1), logprobs=torch.full_like(source.logprobs, -torch.inf)
    )
    logits = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    values = ForwardKL(tail=tail, top_k=2)(query(logits, nothing.ids, pivot), nothing)
    values.sum().backward()
    on_gold = -logits.log_softmax(-1).gather(1, pivot.token[:, None])[:, 0]
    torch.testing.assert_close(values, on_gold if tail == "residual_to_gold" else torch.zeros_like(on_gold))
    assert logits.grad.isfinite().all()


def test_what_the_pivot_says_at_an_empty_entry_changes_nothing():
    pivot, source = mapped(20, 6, 40)
    blank = pivot.logprobs.nan_to_num(nan=-3.0)
    torch.testing.assert_close(
        ForwardKL()(dataclasses.replace(pivot, logprobs=blank), source), ForwardKL()(pivot, source)
    )


def test_an_unknown_following_token_is_refused_only_where_it_is_needed():
    pivot, source = mapped(4, 3, 9)
    blind = dataclasses.replace(pivot, token=None)
    with pytest.raises(ValueError, match="residual_to_gold needs the token.*use tail: bucket"):
        ForwardKL(tail="residual_to_gold")(blind, source)
    torch.testing.assert_close(ForwardKL()(blind, source), ForwardKL()(pivot, source))


@pytest.mark.parametrize("x", [-1e-300, -1e-12, -0.1, -0.6931, -0.6932, -5.0, -50.0, -800.0])
def test_log1mexp_keeps_full_precision_at_both_ends(x):
    getcontext().prec = 400
    exact = float((1 - Decimal(x).exp()).ln())
    at = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    value = log1mexp(at)
    value.sum().backward()
    assert value.item() == pytest.approx(exact, rel=1e-14)
    assert at.grad.item() == pytest.approx(-1 / math.expm1(-x) if x > -700 else 0, rel=1e-12)
