"""Transforms of a source's rows: what each changes, keeps, and where it does nothing."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fusion.core.rows import LogitRows, MappedRows
from fusion.core.tail import log_left_over
from fusion.objectives import ForwardKL
from fusion.transforms import (
    TRANSFORMS,
    AnyTransform,
    GoldOnly,
    LogitSwap,
    MappedTransform,
    Power,
    TopKScale,
    TopKUniform,
)
from fusion.transforms.true_token import scaled, with_gold_entry
from tests.helpers.mapped_rows import mapped
from tests.helpers.rows import as_mapped, query, random_rows, rows_of

EXAMPLES = [
    *(Power(gamma=0.6, tail=tail) for tail in ("single", "even")),
    *(TopKUniform(top_k=k) for k in (1, 4)),
    LogitSwap(),
    TopKScale(top_k=3),
    GoldOnly(),
]
every_transform = pytest.mark.parametrize("transform", EXAMPLES, ids=repr)


def rows_for(transform, M: int, K: int, V: int, unknown: float = 0.0) -> LogitRows | MappedRows:
    """Rows of the type that the transform takes, a share of their entries empty; the numbers are the same in both."""
    _, rows = mapped(M, K, V, unknown=unknown)
    if isinstance(transform, MappedTransform):
        return rows
    numbers = {"logprobs": rows.logprobs, "ids": rows.ids, "mean": rows.mean, "std": rows.std}
    return LogitRows.at(rows, **numbers, gold=rows.pivot_token_logprob)


def gold_name(rows: LogitRows | MappedRows) -> str:
    """Field of the true token's log-probability."""
    return "pivot_token_logprob" if isinstance(rows, MappedRows) else "gold"


def gold_of(rows: LogitRows | MappedRows) -> torch.Tensor:
    return getattr(rows, gold_name(rows))


def applied(transform, rows: LogitRows | MappedRows, vocabulary: int = 40) -> LogitRows | MappedRows:
    return transform(rows) if isinstance(transform, MappedTransform) else transform(rows, vocabulary)


def test_every_class_is_tried():
    assert {type(transform) for transform in EXAMPLES} == set(TRANSFORMS)
    assert len(TRANSFORMS) == 5
    for transform in EXAMPLES:
        assert TypeAdapter(AnyTransform).validate_python(transform.model_dump()) == transform
    with pytest.raises(ValidationError, match="Extra inputs"):
        LogitSwap(weight=1.0)


@every_transform
def test_what_comes_out_is_a_distribution_about_the_same_text(transform):
    source = rows_for(transform, 60, 6, 40, unknown=0.3)
    before = [field.clone() for field in (source.logprobs, source.ids, gold_of(source).nan_to_num())]
    rows = applied(transform, source)
    assert (rows.logprobs.exp().sum(-1) <= 1 + 1e-9).all()
    assert torch.equal(rows.logprobs.isneginf(), rows.ids < 0)
    assert type(rows) is type(source)
    assert torch.equal(gold_of(rows).isnan(), gold_of(source).isnan())
    for name in ("prefix", "example", "token"):
        assert torch.equal(getattr(rows, name), getattr(source, name))
    assert all(map(torch.equal, before, (source.logprobs, source.ids, gold_of(source).nan_to_num())))
    is_gold = rows.ids == rows.token[:, None]
    gold = torch.where(is_gold, rows.logprobs, 0).sum(-1)
    torch.testing.assert_close(gold[is_gold.any(-1)], gold_of(rows)[is_gold.any(-1)])


@every_transform
def test_rows_of_nothing_and_no_rows_stay_so(transform):
    source = rows_for(transform, 5, 6, 40)
    nothing = dataclasses.replace(
        source,
        ids=torch.full_like(source.ids, -1),
        logprobs=torch.full_like(source.logprobs, -torch.inf),
        **{gold_name(source): torch.full_like(gold_of(source), torch.nan)},
    )
    assert applied(transform, nothing).logprobs.isneginf().all()
    assert len(applied(transform, source.select(slice(0, 0)))) == 0


@every_transform
def test_an_agreeing_pivot_pays_nothing_for_the_changed_source(transform):
    rows = applied(transform, rows_for(transform, 30, 6, 40))
    rows = rows if isinstance(rows, MappedRows) else as_mapped(rows)
    rest = log_left_over(rows.logprobs)
    whole = torch.full((30, 41), -30.0, dtype=torch.float64)
    whole.scatter_(1, torch.where(rows.ids < 0, 40, rows.ids), rows.logprobs)
    free = torch.ones(30, 40, dtype=torch.bool).scatter(1, rows.ids.clamp(min=0), False)
    spare = free.float().argmax(-1)  # all that is left over on one token that no entry names
    whole[torch.arange(30), spare] = rest
    pivot = query(whole[:, :40], rows.ids, rows)
    assert ForwardKL()(pivot, rows).abs().max() < 1e-9


# power


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_the_power_of_whole_rows_is_the_softmax_of_tempered_logits(gamma):
    logits = torch.randn(9, 20, dtype=torch.float64) * 3
    rows, known = Power(gamma=gamma)(rows_of(logits, 20), 20), rows_of(logits * gamma, 20)
    for name in ("logprobs", "gold", "mean", "std"):
        torch.testing.assert_close(getattr(rows, name), getattr(known, name))
    assert torch.equal(rows.ids, known.ids)


@pytest.mark.parametrize("tail", ["single", "even"])
def test_what_is_assumed_of_the_rest_brackets_the_tempered_entries(tail):
    logits = torch.randn(50, 20, dtype=torch.float64) * 3
    exact = rows_of(logits * 0.5, 20).logprobs[:, :5]
    found = Power(gamma=0.5, tail=tail)(rows_of(logits, 5), 20).logprobs
    assert ((found >= exact - 1e-9) if tail == "single" else (found <= exact + 1e-9)).all()


def test_only_gamma_one_leaves_rows_as_they_are():
    rows = random_rows(9, 5, 20, torch.float64)
    torch.testing.assert_close(Power(gamma=1.0, tail="single")(rows, 20).logprobs, rows.logprobs)
    assert not torch.allclose(Power(gamma=0.9, tail="single")(rows, 20).logprobs, rows.logprobs)
    assert Power(gamma=0.5).required_top_k is None
    assert Power(gamma=0.5, tail="even").required_top_k == 0


def test_ttm_is_kd_at_temperature_t_with_an_entropy_of_the_pivot():
    """KL(P_T ‖ p) = T KL(P_T ‖ p_T) - (T-1) H_1/T(p) + (T-1) H(P_T), H_a the Rényi entropy."""
    T, theirs, mine = 3.0, *torch.randn(2, 9, 12, dtype=torch.float64)
    source = as_mapped(Power(gamma=1 / T)(rows_of(theirs, 12), 12))
    ttm = ForwardKL(tail="none")(query(mine, source.ids, source), source)
    P, p_T = (theirs / T).softmax(-1), (mine / T).log_softmax(-1)
    kl = (P * (P.log() - p_T)).sum(-1)
    renyi = (mine.softmax(-1) ** (1 / T)).sum(-1).log() / (1 - 1 / T)
    entropy = -(P * P.log()).sum(-1)
    torch.testing.assert_close(ttm, T * kl - (T - 1) * renyi + (T - 1) * entropy, atol=1e-12, rtol=1e-9)


def test_the_gradient_of_ttm_is_the_pivot_minus_the_tempered_source():
    theirs, mine = torch.randn(2, 9, 12, dtype=torch.float64)
    mine.requires_grad_()
    source = as_mapped(Power(gamma=0.4)(rows_of(theirs, 12), 12))
    loss = ForwardKL(tail="none")(query(mine, source.ids, source), source).sum()
    torch.testing.assert_close(
        torch.autograd.grad(loss, mine)[0], (mine.softmax(-1) - (0.4 * theirs).softmax(-1)).detach()
    )


# swap


def test_after_a_swap_the_true_token_comes_first_and_the_sorted_values_are_the_same():
    _, source = mapped(200, 6, 40, unknown=0.2)
    known = ~source.pivot_token_logprob.isnan()
    rows = LogitSwap()(source)
    best = rows.ids.gather(1, rows.logprobs.argmax(-1, keepdim=True))[:, 0]
    assert torch.equal(best[known], source.token[known])
    before, after = (with_gold_entry(source)[0].logprobs, rows.logprobs)
    torch.testing.assert_close(before.sort(-1).values, after.sort(-1).values)
    torch.testing.assert_close(log_left_over(after), log_left_over(before))
    torch.testing.assert_close(rows.pivot_token_logprob[known], before.max(-1).values[known])
    unchanged = rows.select(~known)
    assert torch.equal(unchanged.logprobs[:, :6], source.select(~known).logprobs)


def test_a_source_that_is_right_is_left_alone_and_a_tie_is_right():
    logits = torch.tensor([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0]], dtype=torch.float64)
    right = as_mapped(rows_of(logits, 3, torch.tensor([0, 1])))
    rows = LogitSwap()(right)
    assert torch.equal(rows.logprobs[:, :3], right.logprobs)
    assert torch.equal(rows.ids[:, :3], right.ids)
    assert (rows.ids[:, 3] == -1).all()


def test_swapping_back_with_the_old_first_choice_restores_the_row():
    source = as_mapped(rows_of(torch.randn(30, 9, dtype=torch.float64), 9))
    first = source.ids[:, 0]
    once = LogitSwap()(source)
    gold = torch.where(once.ids == first[:, None], once.logprobs, 0).sum(-1)
    back = LogitSwap()(dataclasses.replace(once, token=first, pivot_token_logprob=gold))
    torch.testing.assert_close(back.logprobs[:, :9], source.logprobs)


# the likeliest alone


@pytest.mark.parametrize("k", [1, 3, 8, 9])
def test_the_likeliest_stay_and_all_others_share_the_rest_evenly(k):
    logits = torch.randn(40, 9, dtype=torch.float64) * 2
    source = rows_of(logits, 9)
    found = TopKUniform(top_k=k)(source, 9)
    p = logits.softmax(-1)
    kept = torch.zeros_like(p, dtype=torch.bool).scatter(1, source.ids[:, :k], True)
    even = torch.where(kept, 0, p).sum(-1, keepdim=True) / max(1, 9 - k)
    whole = torch.where(kept, p, even)  # the definition, on whole rows
    torch.testing.assert_close(whole.sum(-1), torch.ones(40).double())
    torch.testing.assert_close(found.logprobs, source.logprobs[:, :k])
    torch.testing.assert_close(found.gold.exp(), whole.gather(1, source.token[:, None])[:, 0])
    torch.testing.assert_close(found.mean, whole.log().mean(-1))
    torch.testing.assert_close(found.std, whole.log().std(-1, correction=0))
    torch.testing.assert_close(log_left_over(found.logprobs).exp(), even[:, 0] * (9 - k), atol=1e-12, rtol=1e-6)


def test_no_row_with_the_same_likeliest_tokens_has_more_entropy():
    logits = torch.randn(40, 9, dtype=torch.float64) * 2
    p = logits.softmax(-1)
    found = TopKUniform(top_k=3)(rows_of(logits, 9), 9)
    rest = log_left_over(found.logprobs)
    entropy = -(found.logprobs.exp() * found.logprobs).sum(-1) - rest.exp() * (rest - math.log(6))
    assert (entropy >= -(p * p.log()).sum(-1) - 1e-12).all()


def test_an_unknown_probability_stays_unknown():
    source = rows_of(torch.randn(5, 9), 4)
    blind = dataclasses.replace(source, gold=torch.full((5,), torch.nan))
    assert TopKUniform(top_k=2)(blind, 9).gold.isnan().all()


# scaling


def test_entries_that_are_not_raised_stay_to_the_bit():
    z, is_gold = torch.randn(30, 9, dtype=torch.float64), torch.zeros(30, 9, dtype=torch.bool)
    is_gold[torch.arange(30), torch.randint(9, (30,))] = True
    found = scaled(z, is_gold, 3, 2.0, 0.1)
    raised = is_gold | (z >= z.topk(3).values[:, 2:])
    assert torch.equal(found[~raised], z[~raised])
    assert (found[raised] != z[raised]).all()


def test_the_order_of_raised_positive_values_is_kept():
    z = torch.rand(30, 9, dtype=torch.float64).sort(-1, descending=True).values + 0.1
    found = scaled(z, torch.zeros(30, 9, dtype=torch.bool), 4, 2.0, 0.1)
    assert (found[:, :4].diff() <= 0).all()


def test_where_the_source_is_wrong_the_true_token_comes_closer_to_the_first():
    z = torch.tensor([[3.0, 2.5, 0.5, -1.0, -5.0]], dtype=torch.float64)
    is_gold = torch.tensor([[False, True, False, False, False]])
    found = scaled(z, is_gold, 3, 2.0, 0.0)
    torch.testing.assert_close(found, torch.tensor([[6.0, 5.0, 0.5, -1.0, -5.0]], dtype=torch.float64))
    assert (found[0, 0] - found[0, 1]) / found[0, 0] <= (z[0, 0] - z[0, 1]) / z[0, 0]
    plain = scaled(z, torch.zeros_like(is_gold), 3, 2.0, 0.0)
    assert found[0, 0] - found[0, 1] < plain[0, 0] - plain[0, 1]


def test_what_is_left_over_keeps_its_ratio_to_entries_that_are_not_raised():
    source = as_mapped(rows_of(torch.randn(30, 40, dtype=torch.float64), 8))
    rows = TopKScale(top_k=3)(source)
    at = (source.ids != source.token[:, None])[:, 7] & (rows.ids[:, 8] < 0)
    before, after = (
        source.logprobs[:, 7] - log_left_over(source.logprobs),
        rows.logprobs[:, 7] - log_left_over(rows.logprobs),
    )
    torch.testing.assert_close(after[at], before[at])


# the true token alone


def test_gold_only_keeps_the_true_tokens_probability_exactly_and_nothing_of_the_others():
    _, source = mapped(30, 6, 40, unknown=0.3)
    rows = GoldOnly()(source)
    known = ~source.pivot_token_logprob.isnan()
    assert rows.k == 1
    assert torch.equal(rows.logprobs[known, 0], source.pivot_token_logprob[known])
    assert torch.equal(rows.ids[known, 0], source.token[known])
    assert (rows.ids[~known] == -1).all()
    other = dataclasses.replace(source, logprobs=source.logprobs - 1)
    assert torch.equal(GoldOnly()(other).logprobs, rows.logprobs)


def test_spread_evenly_the_rest_has_the_greatest_entropy_for_that_probability():
    gold, V = 0.3, 6
    even = torch.tensor([gold] + [(1 - gold) / (V - 1)] * (V - 1), dtype=torch.float64)
    rest = torch.rand(200, V - 1, dtype=torch.float64) + 1e-3
    others = torch.cat([torch.full((200, 1), gold).double(), (1 - gold) * rest / rest.sum(-1, keepdim=True)], dim=1)
    entropy = -(others * others.log()).sum(-1)
    assert (entropy <= -(even * even.log()).sum() + 1e-12).all()
