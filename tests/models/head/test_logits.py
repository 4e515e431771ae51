"""What is read from logits, and its gradient, against plain torch operations in float64."""

import pytest
import torch

from fusion.models.head.logits import BLOCK, TILE, logsumexp, mean_and_std, summarize_logits, top_k_ids

SIZES = [(1, 3, 1), (5, 40, 7), (3, BLOCK * 9, 4), (17, BLOCK * 30 + 13, 10), (4, 2 * TILE + 77, 10), (2, 151_936, 10)]


def logits_of(N, V, dtype=torch.float32, seed=0):
    return torch.randn(N, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(3).to(dtype)


def plainly(logits, token, ask, k):
    logprobs = logits.log_softmax(-1)
    values, ids = logits.topk(k)
    lse = logits.logsumexp(-1)
    std, mean = torch.std_mean(logits, -1, correction=0)
    gold = logprobs.gather(1, token[:, None])[:, 0]
    return values - lse[:, None], ids, gold, mean - lse, std, logprobs.gather(1, ask.clamp(min=0))


@pytest.mark.parametrize(("N", "V", "k"), SIZES)
def test_the_largest_are_those_of_a_full_search(N, V, k):
    logits = logits_of(N, V)
    values, ids = logits.topk(k)
    assert torch.equal(top_k_ids(logits, k), ids)
    assert torch.equal(logits.gather(1, top_k_ids(logits, k)), values)


def test_the_largest_are_found_wherever_they_lie():
    """At the edges of blocks, all in one block, and in the rest behind the last block."""
    V = BLOCK * 40 + 5
    for places in ([0, 1, 2, 3], [BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK], [V - 1, V - 5, V - 6, 0], range(70, 74)):
        logits = torch.zeros(1, V)
        for rank, place in enumerate(places):
            logits[0, place] = 9 - rank
        assert top_k_ids(logits, 4)[0].tolist() == list(places)


@pytest.mark.parametrize("k", [1, 5, 12])
def test_ties_give_the_same_values_each_once(k):
    logits = torch.randint(0, 4, (50, BLOCK * 33 + 20), generator=torch.Generator().manual_seed(1)).float()
    logits[0] = 1.0
    logits[1] = -torch.inf
    logits[1, 700:703] = 2.0
    ids = top_k_ids(logits, k)
    assert torch.equal(logits.gather(1, ids), logits.topk(k).values)
    assert all(len(set(row)) == k for row in ids.tolist())


@pytest.mark.parametrize(("N", "V", "k"), SIZES)
@pytest.mark.parametrize("shift", [0.0, 80.0, -300.0])
def test_log_sum_exp_and_moments_are_those_of_float64(N, V, k, shift):
    logits = logits_of(N, V) + shift
    exact = logits.double()
    torch.testing.assert_close(logsumexp(logits).double(), exact.logsumexp(-1), atol=2e-5, rtol=1e-6)
    mean, std = mean_and_std(logits)
    torch.testing.assert_close(mean.double(), exact.mean(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(std.double(), exact.std(-1, correction=0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("N", "V", "k"), SIZES[:-1])
@pytest.mark.parametrize("moments", [True, False])
def test_values_and_gradients_are_those_of_plain_operations(N, V, k, moments):
    torch.manual_seed(N)
    token, ask = torch.randint(V, (N,)), torch.randint(-1, V, (N, 6))
    ask[:, 0], ask[:, 1] = token, ask[:, 2]  # ids asked for twice get both gradients
    outcomes = []
    for way in (lambda x: summarize_logits(x, token, ask, k, moments), lambda x: plainly(x, token, ask, k)):
        x = logits_of(N, V, torch.float64).requires_grad_()
        found = way(x)
        floats = [found[0], found[2], found[5], *(found[3:5] if moments else ())]
        sum((value * (i + 1)).cos().sum() for i, value in enumerate(floats)).backward()
        outcomes.append([*floats, found[1], x.grad])
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_without_moments_they_are_not_known():
    found = summarize_logits(
        logits_of(3, 50), torch.zeros(3, dtype=torch.long), torch.empty(3, 0, dtype=torch.long), 4, False
    )
    assert found.mean.isnan().all()
    assert found.std.isnan().all()


def test_equal_logits_have_finite_gradients():
    x = torch.full((2, 300), 1.5, requires_grad=True)
    found = summarize_logits(x, torch.tensor([0, 7]), torch.tensor([[1], [-1]]), 5)
    (found.std.sum() + found.mean.sum() + found.logprobs.sum() + found.gold.sum()).backward()
    assert x.grad.isfinite().all()
    assert found.std.tolist() == [0.0, 0.0]


def test_impossible_tokens_take_no_part():
    x = logits_of(4, 700)
    x[:, 100:200] = -torch.inf
    x.requires_grad_()
    found = summarize_logits(x, torch.tensor([0, 1, 2, 3]), torch.full((4, 1), 500), 10, moments=False)
    found.logprobs.sum().backward()
    assert found.logprobs.isfinite().all()
    assert x.grad.isfinite().all()
    assert (x.grad[:, 100:200] == 0).all()


def test_a_whole_tile_may_be_impossible():
    logits = logits_of(3, 3 * TILE)
    logits[:, TILE : 2 * TILE] = -torch.inf
    torch.testing.assert_close(logsumexp(logits), logits.logsumexp(-1))
    logits[0] = -torch.inf
    assert logsumexp(logits)[0] == -torch.inf


def test_the_backward_pass_makes_one_tensor_of_the_size_of_the_logits():
    """And keeps none but the logits themselves, which are there already."""
    kept = []
    x = logits_of(8, 5000).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        summarize_logits(x, torch.zeros(8, dtype=torch.long), torch.zeros(8, 3, dtype=torch.long), 10)
    assert kept.count(x.data_ptr()) == 1
    assert len(kept) <= 4
