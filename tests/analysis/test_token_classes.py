"""What models say where a token follows: by hand, against scipy, and for sources that are known to be smoothed or saturated."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from scipy.stats import spearmanr

from fusion.analysis.token_classes import divergence, entropy, rank_correlation, token_classes


def log(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def test_every_number_by_hand():
    label, ids = torch.tensor([7, 7, 3]), torch.tensor([[7, 1, -1], [7, 2, 1], [3, 1, 2]])
    source = log([0.5, 0.3, 0.9], [0.7, 0.1, 0.1], [1.0, 0.0, 0.0])
    pivot = log([0.25, 0.25, 0.9], [0.25, 0.5, 0.1], [0.2, 0.3, 0.4])
    seven, three = token_classes(label, ids, {"source": source, "pivot": pivot}, min_rows=1)
    assert (seven.token, seven.count, three.token, three.count) == (7, 2, 3, 1)
    p = {7: 0.6, 1: 0.2, 2: 0.05, "other": 0.15}  # means over two rows; the empty entry counts for nobody
    q = {7: 0.25, 1: 0.175, 2: 0.25, "other": 0.325}
    for prediction, means in ((seven.predictions["source"], p), (seven.predictions["pivot"], q)):
        assert prediction.entropy == pytest.approx(scipy_entropy(list(means.values())))
        assert prediction.rest_entropy == pytest.approx(scipy_entropy([v for k, v in means.items() if k != 7]))
        assert prediction.divergence == pytest.approx(sum(p[k] * math.log(p[k] / means[k]) for k in p))
    assert seven.predictions["source"].rank_correlation == pytest.approx(1)
    assert seven.predictions["pivot"].rank_correlation == pytest.approx(-1)  # 1 before 2 there, 2 before 1 here
    assert three.predictions["source"].entropy == pytest.approx(0, abs=1e-12)
    assert math.isnan(three.predictions["source"].rank_correlation)


def test_tokens_that_follow_too_seldom_are_left_out_and_the_frequent_come_first():
    label = torch.tensor([5] * 4 + [2] * 7 + [9])
    ids, values = torch.arange(3).expand(12, 3), torch.full((12, 3), -2.0)
    assert [(c.token, c.count) for c in token_classes(label, ids, {"s": values}, 4)] == [(2, 7), (5, 4)]
    assert token_classes(label[:0], ids[:0], {"s": values[:0]}, 1) == []


@pytest.mark.parametrize("n", [2, 5, 40])
def test_entropy_divergence_and_order_are_those_of_scipy(n):
    p, q = torch.rand(2, n, dtype=torch.float64) + 0.01
    p, q = (p * 10).round() / (p * 10).round().sum() if n == 40 else p / p.sum(), q / q.sum()  # with ties
    assert entropy(p) == pytest.approx(scipy_entropy(p.numpy()))
    q = q + 1e-9
    assert divergence(p, q) == pytest.approx((p * (p / q).log()).nan_to_num().sum().item())
    assert rank_correlation(p, q, torch.ones(n, dtype=torch.bool)) == pytest.approx(spearmanr(p, q).statistic)


def test_a_model_that_says_what_the_source_says_differs_by_nothing():
    label, ids = torch.randint(4, (200,)), torch.stack([torch.randperm(30)[:8] for _ in range(200)])
    values = torch.randn(200, 30, dtype=torch.float64).log_softmax(-1).gather(1, ids)
    for each in token_classes(label, ids, {"source": values, "same": values.clone()}, 5):
        assert each.predictions["same"] == each.predictions["source"]
        assert each.predictions["same"].divergence == pytest.approx(0, abs=1e-12)
        assert each.predictions["same"].rank_correlation == pytest.approx(1)


def test_a_smoothed_source_finds_all_others_alike_and_a_saturated_one_none():
    V, label = 12, torch.arange(4).repeat(50)
    ids, is_label = torch.arange(V).expand(200, V), torch.nn.functional.one_hot(label, V).bool()
    logits = torch.randn(4, V, dtype=torch.float64)[label] * 2 + 4 * is_label
    plain = logits.log_softmax(-1)
    smoothed = (is_label.double() * 0.9 + (~is_label).double() * 0.1 / (V - 1)).log()
    saturated = (logits + 40 * is_label).log_softmax(-1)
    found = token_classes(label, ids, {"plain": plain, "smoothed": smoothed, "saturated": saturated}, 10)
    assert len(found) == 4
    for each in found:
        rests = {name: prediction.rest_entropy for name, prediction in each.predictions.items()}
        assert rests["smoothed"] == pytest.approx(math.log(V - 1), abs=1e-6)
        assert rests["plain"] < rests["smoothed"] - 0.2
        assert math.isnan(each.predictions["smoothed"].rank_correlation)
        assert each.predictions["saturated"].entropy < 1e-9
        assert each.predictions["saturated"].rank_correlation == pytest.approx(
            1
        )  # what it knows of the others is there, if faint
