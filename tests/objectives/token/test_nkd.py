"""The true token and the others apart: definitions, the identity with cross-entropy, and what moves what."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fusion.objectives import NKD, USKD
from fusion.objectives.token.nkd import own_target
from tests.helpers import reference_outcomes as slow
from tests.helpers.mapped_rows import agreeing, mapped
from tests.helpers.rows import as_mapped, query, random_rows, rows_of


@pytest.mark.parametrize(("M", "K", "V"), [(30, 4, 11), (1, 1, 3), (40, 16, 257)])
@pytest.mark.parametrize(("top_k", "gamma"), [(None, 1.5), (2, 0.3)])
def test_nkd_matches_the_definition(M, K, V, top_k, gamma):
    pivot, source = mapped(M, K, V, unknown=0.3)
    ours = NKD(top_k=top_k, gamma=gamma)(pivot, source)
    known = slow.each_row(slow.gold_outcomes(pivot, source, top_k), lambda p, q: slow.nkd(p, q, gamma))
    torch.testing.assert_close(ours, known)


def test_with_gamma_one_minus_p_it_is_cross_entropy_without_the_binary_term():
    """CE(P, p) = -P_y log p_y - (1-P_y) log(1-p_y) + (1-P_y) CE of the others, each normalised."""
    mine, theirs = torch.randn(2, 1, 13, dtype=torch.float64) * 2
    source = as_mapped(rows_of(theirs, 13))
    P, p = source.pivot_token_logprob.exp().item(), mine.log_softmax(-1)[0, source.token[0]].exp()
    whole = -(theirs.softmax(-1) * mine.log_softmax(-1)).sum()
    value = NKD(gamma=1 - P)(query(mine, source.ids, source), source)
    torch.testing.assert_close(value[0], whole + (1 - P) * torch.log(1 - p))


def test_the_term_on_the_others_does_not_move_the_true_tokens_logit():
    logits = torch.randn(9, 20, dtype=torch.float64, requires_grad=True)
    source = as_mapped(rows_of(torch.randn(9, 20, dtype=torch.float64), 6))
    both = [NKD(gamma=gamma)(query(logits, source.ids, source), source).sum() for gamma in (0.0, 1.0)]
    (gradient,) = torch.autograd.grad(both[1] - both[0], logits)
    assert gradient.gather(1, source.token[:, None]).abs().max() < 1e-12
    assert gradient.abs().max() > 1e-3


def test_the_term_on_the_others_is_least_where_their_ratios_agree_whatever_the_true_token_has():
    logits = torch.randn(9, 20, dtype=torch.float64)
    _, source = agreeing(logits, 6)
    gold = torch.nn.functional.one_hot(source.token, 20)

    def others(given):
        at = query(given, source.ids, source)
        return NKD(gamma=1.0)(at, source) - NKD(gamma=0.0)(at, source)

    least = others(logits)
    torch.testing.assert_close(others(logits + 3.0 * gold), least)
    assert all((others(logits + torch.randn(9, 20).double()) >= least - 1e-12).all() for _ in range(20))


def test_nkd_is_not_least_where_pivot_and_source_agree():
    logits = torch.randn(9, 20, dtype=torch.float64)
    pivot, source = agreeing(logits, 6)
    surer = query(logits + torch.nn.functional.one_hot(source.token, 20), source.ids, source)
    assert (NKD()(surer, source) < NKD()(pivot, source)).all()


def test_the_targets_of_uskd_are_one_on_average_in_each_example():
    rows = random_rows(17, 0, 9, torch.float64, examples=4)
    target = own_target(rows.gold, rows.example)
    for e in range(4):
        torch.testing.assert_close(target[rows.example == e].mean(), torch.ones((), dtype=torch.float64))
    assert target[rows.gold.argmax()] > 1


@pytest.mark.parametrize("k", [1, 4, 9])
def test_uskd_matches_the_definition(k):
    rows = random_rows(12, k + 1, 30, torch.float64, examples=2)
    known, whole = [], random_rows(12, 30, 30, torch.float64, examples=2)
    target = own_target(rows.gold, rows.example)
    for n in range(12):
        others = [v for i, v in zip(whole.ids[n].tolist(), whole.logprobs[n], strict=True) if i != rows.token[n]]
        zipf = torch.tensor([1 / r for r in range(1, k + 1)], dtype=torch.float64)
        zipf = zipf / zipf.sum()
        apart = torch.stack(others).log_softmax(0)
        known.append(-0.7 * target[n] * rows.gold[n] - 0.2 * (zipf * apart[:k]).sum())
        assert (zipf.diff() < 0).all()
        assert zipf.sum() == pytest.approx(1)
    torch.testing.assert_close(USKD(alpha=0.7, beta=0.2, top_k=k)(rows), torch.stack(known))


def test_the_gradient_of_uskd_takes_its_target_as_a_constant():
    logits = torch.randn(7, 20, dtype=torch.float64, requires_grad=True)
    rows = rows_of(logits, 5)
    (ours,) = torch.autograd.grad(USKD(beta=0.0, top_k=4)(rows).sum(), logits, retain_graph=True)
    held = own_target(rows.gold.detach(), rows.example)
    (known,) = torch.autograd.grad(-(held * rows.gold).sum(), logits)
    torch.testing.assert_close(ours, known)


def test_uskd_without_following_tokens_is_refused():
    with pytest.raises(ValueError, match="uskd needs the token"):
        USKD(top_k=2)(dataclasses.replace(random_rows(3, 4, 9), token=None))
