"""Entries of one id become one: against a loop in float64, whatever the row holds."""

import dataclasses
import math

import pytest
import torch

from fusion.core.rows import LogitRows


def rows(n: int, k: int, vocabulary: int, dtype=torch.float64) -> LogitRows:
    torch.manual_seed(k)
    logprobs = torch.log_softmax(4 * torch.randn(n, k, dtype=dtype), -1)
    logprobs[torch.rand(n, k) < 0.2] = -math.inf
    nothing = torch.zeros(n, dtype=dtype)
    place = torch.zeros(n, dtype=torch.long)
    ids, drawn = torch.randint(-1, vocabulary, (n, k)), torch.randint(0, 9, (n, k))
    return LogitRows(logprobs, ids, nothing, nothing, nothing, prefix=place, example=place, sample_counts=drawn)


def one_by_one(ids: list[int], logprobs: list[float], sampled: list[int]) -> tuple[list[int], list[float], list[int]]:
    sums, counts = {}, {}
    for id, logprob, count in zip(ids, logprobs, sampled, strict=True):
        sums[id], counts[id] = sums.get(id, 0.0) + math.exp(logprob), counts.get(id, 0) + count
    left = [id if id >= 0 and id not in ids[:place] else -1 for place, id in enumerate(ids)]
    logs = [math.log(sums[id]) if id >= 0 and sums[id] > 0 else -math.inf for id in left]
    return left, logs, [counts[id] if id >= 0 else 0 for id in left]


@pytest.mark.parametrize(("n", "k", "vocabulary"), [(40, 10, 6), (40, 10, 1000), (10, 200, 50), (5, 1, 3), (0, 4, 4)])
def test_pooled_rows_are_those_of_a_loop(n, k, vocabulary):
    given = rows(n, k, vocabulary)
    found = given.pooled()
    for i in range(n):
        ids, logs, counts = one_by_one(
            given.ids[i].tolist(), given.logprobs[i].tolist(), given.sample_counts[i].tolist()
        )
        assert found.ids[i].tolist() == ids
        assert found.logprobs[i].tolist() == pytest.approx(logs, rel=1e-12)
        assert found.sample_counts[i].tolist() == counts


def test_small_probabilities_beside_a_large_one_are_kept():
    given = dataclasses.replace(
        rows(1, 4, 3, torch.float32),
        ids=torch.tensor([[0, 1, 1, 2]]),
        logprobs=torch.tensor([[0.0, -200.0, -200.0, -math.inf]]),
    )
    assert given.pooled().logprobs[0].tolist() == pytest.approx([0.0, -200 + math.log(2), -math.inf, -math.inf])


def test_gradients_reach_every_entry_of_a_group_by_its_share():
    given = rows(1, 4, 3)
    logprobs = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)).requires_grad_()
    pooled = dataclasses.replace(given, ids=torch.tensor([[5, 7, 5, 7]]), logprobs=logprobs).pooled()
    pooled.logprobs[0, 0].backward()
    assert logprobs.grad[0].tolist() == pytest.approx([0.4 / 0.6, 0.0, 0.2 / 0.6, 0.0])
