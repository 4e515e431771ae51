"""Which matched rows count: those of a sure model, or those where the source knows more than the pivot."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from fusion.objectives import Confident, ForwardKL, KnowsMore
from tests.helpers.rows import as_mapped, random_rows


def rows(*largest: float):
    found = random_rows(len(largest), 3, 9)
    logprobs = torch.tensor(largest)[:, None].log() + torch.tensor([[0.0, -9.0, -9.0]])
    return dataclasses.replace(found, logprobs=logprobs)


def counted(selection, pivot, source):
    """Which rows count where the source's log-probability of the token that follows is that of its own tokens."""
    return selection(pivot, source, source.gold)


PIVOT, SOURCE = rows(0.9, 0.1, 0.9, 0.1), rows(0.1, 0.1, 0.9, 0.9)


@pytest.mark.parametrize(
    ("model", "counts"), [("pivot", [True, False, True, False]), ("source", [False, False, True, True])]
)
def test_the_most_likely_token_decides(model, counts):
    assert counted(Confident(threshold=0.5, model=model), PIVOT, SOURCE).tolist() == counts


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.95])
def test_with_either_all_rows_count_that_count_for_the_source_alone(threshold):
    either = counted(Confident(threshold=threshold), PIVOT, SOURCE)
    alone = counted(Confident(threshold=threshold, model="source"), PIVOT, SOURCE)
    assert (either | ~alone).all()
    assert torch.equal(either, alone | counted(Confident(threshold=threshold, model="pivot"), PIVOT, SOURCE))


def test_the_papers_mask_read_literally_is_least_at_zero():
    """Sum of m times a disparity plus 0.1 |m| is linear in m with coefficients above 0: nothing would be selected."""
    disparity = torch.rand(50)
    best = torch.zeros(50)
    cost = (disparity * best).sum() + 0.1 * best.sum()
    others = torch.rand(200, 50)
    assert (cost < (others * disparity).sum(-1) + 0.1 * others.sum(-1)).all()


def test_selection_is_a_setting_of_every_term_on_matched_rows():
    confident = {"kind": "confident", "threshold": 0.5}
    assert ForwardKL.model_validate({"select": confident}).select == Confident(threshold=0.5)
    assert ForwardKL.model_validate({"select": {"kind": "knows_more"}}).select == KnowsMore(margin=0)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Confident(threshold=1.5)


def with_gold(*gold: float):
    return dataclasses.replace(random_rows(len(gold), 3, 9), gold=torch.tensor(gold))


def test_the_likelihood_of_the_true_token_decides_who_knows_more():
    pivot, source = with_gold(-1.0, -1.0, -1.0, -1.0), with_gold(-0.5, -1.0, -2.0, float("nan"))
    assert counted(KnowsMore(), pivot, source).tolist() == [True, False, False, False]
    assert counted(KnowsMore(margin=0.6), pivot, source).tolist() == [False] * 4
    assert counted(KnowsMore(margin=-1.5), pivot, source).tolist() == [True, True, True, False]


def test_where_the_source_knows_more_a_step_never_lowers_the_true_token():
    """With the true token among the entries: the gradient of its logit is q - p, below 0 where the source knows more."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 9, generator=generator, requires_grad=True)
    log_p = torch.randn(500, 9, generator=generator).log_softmax(-1)
    ids = log_p.argsort(-1, descending=True)[:, :4]
    truth = ids[:, 1]
    source = dataclasses.replace(random_rows(500, 4, 9), logprobs=log_p.gather(1, ids), ids=ids)
    source = dataclasses.replace(source, gold=log_p.gather(1, truth[:, None])[:, 0], token=truth)
    log_q = logits.log_softmax(-1)
    pivot = dataclasses.replace(source, logprobs=log_q.gather(1, ids), gold=log_q.gather(1, truth[:, None])[:, 0])
    mapped = as_mapped(source)
    counts = KnowsMore()(pivot, mapped, mapped.pivot_token_logprob)
    assert 50 < counts.sum() < 450
    (ForwardKL()(pivot, mapped) * counts).sum().backward()
    of_truth = logits.grad.gather(1, truth[:, None])[:, 0]
    assert (of_truth[counts] < 0).all()
    assert (logits.grad[~counts] == 0).all()
