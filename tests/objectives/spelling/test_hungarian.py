"""The matching against brute force, what must not change it, and the two terms it lies between."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest
import torch
from torch import Tensor, nn

from fusion.alignment import SpellingDistance
from fusion.objectives import ULD, Hungarian
from fusion.objectives.spelling.hungarian import assign
from tests.helpers import reference
from tests.helpers.rows import random_rows, rows_of

M, K, L = 9, 4, 5


def rows(k: int, V: int = 30, seed: int = 0, N: int = M):
    return random_rows(N, k, V, torch.float64, seed)


def random_distance(*shape: int, seed: int = 3) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Known(nn.Module):
    """Says these distances [M, K, L], whatever the ids."""

    def __init__(self, distance: Tensor):
        super().__init__()
        self.distance = distance

    def forward(self, pivot: Tensor, source: Tensor) -> Tensor:
        assert self.distance.shape == (len(pivot), source.shape[1], pivot.shape[1])
        return self.distance


def least_cost(cost: list[list[float]]) -> float:
    """Over all ways to match as many as can be; a price of infinity is never paid."""
    longer = range(max(len(cost), len(cost[0])))
    found = []
    for order in itertools.permutations(longer, min(len(cost), len(cost[0]))):
        pairs = (
            zip(range(len(cost)), order, strict=False)
            if len(cost) <= len(cost[0])
            else zip(order, range(len(cost[0])), strict=True)
        )
        found.append(sum(cost[i][j] for i, j in pairs))
    return min(found)


def paid(cost: Tensor, match: Tensor) -> Tensor:
    return cost.gather(2, match.clamp(min=0)[:, :, None])[:, :, 0].masked_fill(match < 0, 0).sum(-1)


@pytest.mark.parametrize(("k", "candidates"), [(1, 1), (3, 3), (3, 5), (5, 3), (1, 6), (6, 1)])
def test_the_matching_is_the_cheapest_of_all(k, candidates):
    cost = random_distance(7, k, candidates) * 10
    match = assign(cost)
    assert ((match >= 0).sum(-1) == min(k, candidates)).all()
    for row in match.tolist():
        used = [j for j in row if j >= 0]
        assert len(set(used)) == len(used)
    known = torch.tensor([least_cost(each.tolist()) for each in cost], dtype=torch.float64)
    torch.testing.assert_close(paid(cost, match), known)


def test_infinite_costs_are_never_paid_and_as_many_as_can_be_are_matched():
    cost = torch.tensor([[[1.0, math.inf], [2.0, math.inf]], [[math.inf] * 2] * 2, [[9.0, 1.0], [1.0, math.inf]]])
    assert assign(cost).tolist() == [[0, -1], [-1, -1], [1, 0]]


@pytest.mark.parametrize("loss", ["kl", "l1"])
@pytest.mark.parametrize("difference", ["logarithms", "probabilities"])
@pytest.mark.parametrize(("k", "candidates"), [(4, 5), (4, 4), (5, 3)])
def test_the_value_is_that_of_the_definition(loss, difference, k, candidates):
    source, pivot, distance = rows(k, seed=1), rows(candidates, V=20, seed=2), random_distance(M, k, candidates)
    objective = Hungarian(
        top_k=k, candidates=candidates, probability=0.7, spelling=2.0, difference=difference, loss=loss
    )
    match = assign(objective.cost(source.logprobs, pivot.logprobs, distance))
    known = []
    for m in range(M):
        P, p = source.logprobs[m].exp().tolist(), pivot.logprobs[m].exp().tolist()
        size = (lambda x: math.log(x)) if difference == "logarithms" else (lambda x: x)
        cost = [
            [0.7 * abs(size(a) - size(b)) + 2.0 * distance[m, i, j].item() for j, b in enumerate(p)]
            for i, a in enumerate(P)
        ]
        chosen = [(i, j) for i, j in enumerate(match[m].tolist()) if j >= 0]
        assert sum(cost[i][j] for i, j in chosen) == pytest.approx(least_cost(cost))
        pairs = [(P[i], p[j]) for i, j in chosen]
        pairs.append((1 - sum(a for a, _ in pairs), 1 - sum(b for _, b in pairs)))
        known.append(sum(abs(a - b) if loss == "l1" else a * math.log(a / b) for a, b in pairs))
    torch.testing.assert_close(objective(pivot, source, Known(distance)), torch.tensor(known, dtype=torch.float64))


@pytest.mark.parametrize(("V", "W"), [(6, 6), (7, 7), (5, 8), (8, 5)])
def test_probabilities_alone_give_uld(V, W):
    """On whole rows the term is ULD where both have as many tokens; on the K largest, ULD of those."""
    objective = Hungarian(top_k=W, candidates=V, spelling=0.0, difference="probabilities", loss="l1")
    pivot, source = rows(V, V=V, seed=1), rows(W, V=W, seed=2)
    distance = random_distance(M, W, V)
    if V == W:
        torch.testing.assert_close(objective(pivot, source, Known(distance)), ULD()(pivot, source))
    few = Hungarian(top_k=4, candidates=4, spelling=0.0, difference="probabilities", loss="l1")
    mine, theirs = rows(4, seed=1), rows(4, V=50, seed=2)
    rest = ((1 - theirs.logprobs.exp().sum(-1)) - (1 - mine.logprobs.exp().sum(-1))).abs()
    known = [
        reference.l1(*each) for each in zip(mine.logprobs.exp().tolist(), theirs.logprobs.exp().tolist(), strict=True)
    ]
    found = few(mine, theirs, Known(random_distance(M, 4, 4))) - rest
    torch.testing.assert_close(found, torch.tensor(known, dtype=torch.float64))


@pytest.mark.parametrize(
    "objective", [Hungarian(top_k=K, candidates=L), Hungarian(top_k=K, candidates=L, loss="l1")], ids=repr
)
def test_the_order_of_either_list_changes_nothing(objective):
    source, pivot, distance = rows(K, seed=1), rows(L, seed=2), random_distance(M, K, L)
    i, j = torch.tensor([2, 0, 3, 1]), torch.tensor([4, 1, 0, 2, 3])
    theirs = dataclasses.replace(source, logprobs=source.logprobs[:, i], ids=source.ids[:, i])
    mine = dataclasses.replace(pivot, logprobs=pivot.logprobs[:, j], ids=pivot.ids[:, j])
    moved = objective(mine, theirs, Known(distance[:, i][:, :, j]))
    torch.testing.assert_close(moved, objective(pivot, source, Known(distance)))


def test_more_candidates_never_raise_the_least_cost():
    source, pivot, distance = rows(K, seed=1, N=50), rows(9, seed=2, N=50), random_distance(50, K, 9)
    objective = Hungarian(top_k=K, candidates=9)
    cost = objective.cost(source.logprobs, pivot.logprobs, distance)
    paid_for = [paid(cost[:, :, :n], assign(cost[:, :, :n])) for n in range(K, 10)]
    assert all((more <= fewer + 1e-12).all() for fewer, more in itertools.pairwise(paid_for))
    assert (paid_for[-1] < paid_for[0] - 1e-3).any()


def test_without_a_cost_of_probability_some_cheapest_matching_pairs_every_common_word_with_itself():
    draw = random.Random(0)
    for _ in range(60):
        pool = sorted({bytes(draw.choices(b"ab", k=draw.randint(1, 4))) for _ in range(9)})
        theirs, mine = (draw.sample(pool, 4) for _ in range(2))
        every = torch.arange(4)[None]
        distance = SpellingDistance.from_token_bytes(mine, theirs)(every, every)[0].double()
        common = set(theirs) & set(mine)
        with_itself = [
            sum(distance[i, j].item() for i, j in enumerate(order))
            for order in itertools.permutations(range(4))
            if all(theirs[i] == mine[j] for i, j in enumerate(order) if theirs[i] in common)
        ]
        best = paid(distance[None], assign(distance[None])).item()
        assert best == pytest.approx(min(with_itself))


def test_words_are_matched_with_themselves_where_spelling_is_dear_and_by_rank_where_it_is_free():
    source = rows_of(torch.tensor([[3.0, 2.0, 1.0, -5.0]], dtype=torch.float64), 3)
    pivot = rows_of(torch.tensor([[1.0, 2.0, 3.0, -5.0]], dtype=torch.float64), 3)  # ids 2, 1, 0
    distance = (source.ids[:, :, None] != pivot.ids[:, None, :]).double()
    by_word, by_rank = Hungarian(top_k=3, candidates=3, spelling=100.0), Hungarian(top_k=3, candidates=3, spelling=0.0)
    assert assign(by_word.cost(source.logprobs, pivot.logprobs, distance)).tolist() == [[2, 1, 0]]
    assert assign(by_rank.cost(source.logprobs, pivot.logprobs, distance)).tolist() == [[0, 1, 2]]
    assert by_rank(pivot, source, Known(distance)).item() == pytest.approx(0, abs=1e-12)
    assert by_word(pivot, source, Known(distance)).item() > 1


def test_what_has_no_partner_is_compared_as_one_outcome():
    """One token each: the term is the binary divergence between that token and all others."""
    source, pivot = rows(1, seed=1), rows(1, seed=2)
    P, p = source.logprobs[:, 0].exp(), pivot.logprobs[:, 0].exp()
    known = P * (P / p).log() + (1 - P) * ((1 - P) / (1 - p)).log()
    torch.testing.assert_close(Hungarian(top_k=1, candidates=1)(pivot, source, Known(random_distance(M, 1, 1))), known)


def test_an_empty_entry_of_the_source_takes_no_partner():
    source, pivot = rows(3, seed=1), rows(2, seed=2)
    gap = dataclasses.replace(
        source,
        logprobs=torch.cat([source.logprobs[:, :2], torch.full((M, 1), -torch.inf, dtype=torch.float64)], dim=1),
        ids=torch.cat([source.ids[:, :2], torch.full((M, 1), -1)], dim=1),
    )
    distance = random_distance(M, 3, 2)
    distance[:, 2] = 0
    found = Hungarian(top_k=3, candidates=2)(pivot, gap, Known(distance))
    torch.testing.assert_close(found, Hungarian(top_k=2, candidates=2)(pivot, source, Known(distance[:, :2])))
