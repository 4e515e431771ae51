"""Slow, obvious versions of every formula of `fusion.objectives` and `fusion.weighting`: float64, loops, no tricks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from fusion.core.rows import LogitRows, Pairs


def numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    return [math.exp(v - top) / sum(math.exp(w - top) for w in values) for v in values]


def l1(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two lists in descending order, the shorter padded with zeros."""
    width = max(len(a), len(b))
    a, b = [*a, *[0.0] * (width - len(a))], [*b, *[0.0] * (width - len(b))]
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


# objectives


def cross_entropy(pivot: LogitRows) -> Tensor:
    return torch.tensor([-float(gold) for gold in numbers(pivot.gold)], dtype=torch.float64)


def uld(pivot: LogitRows, source: LogitRows, pivot_temperature: float = 1, source_temperature: float = 1) -> Tensor:
    values = []
    for mine, theirs in zip(numbers(pivot.logprobs), numbers(source.logprobs), strict=True):
        p, q = softmax(mine / pivot_temperature), softmax(theirs / source_temperature)
        values.append(l1(sorted(p, reverse=True), sorted(q, reverse=True)))
    return torch.tensor(values, dtype=torch.float64)


def least_l1(p: Sequence[float], q: Sequence[float]) -> float:
    """Over all ways to match the entries one to one."""
    return min(sum(abs(x - y) for x, y in zip(p, other, strict=True)) for other in permutations(q))


def z_scores(values: Sequence[float], eps: float, unbiased: bool) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - unbiased)
    return [(v - mean) / (math.sqrt(variance) + eps) for v in values]


def infifusion(pivot: LogitRows, source: LogitRows, k: int, post: str = "none", unbiased: bool = True) -> Tensor:
    values = []
    for mine, theirs in zip(numbers(pivot.logprobs), numbers(source.logprobs), strict=True):
        a, b = z_scores(mine[:k], 1e-7, unbiased), z_scores(theirs[:k], 1e-7, unbiased)
        values.append(l1(softmax(a), softmax(b)) if post == "softmax" else l1(a, b))
    return torch.tensor(values, dtype=torch.float64)


def graph_inputs(rows: LogitRows, k: int, kind: str) -> np.ndarray:
    logprobs, mean, std = numbers(rows.logprobs)[:, :k], numbers(rows.mean), numbers(rows.std)
    if kind == "standardised":
        return np.array([[(v - m) / max(s, 1e-7) for v in row] for row, m, s in zip(logprobs, mean, std, strict=True)])
    return np.exp(logprobs) if kind == "probabilities" else logprobs


def graph(z: np.ndarray, nodes: np.ndarray, count: int) -> np.ndarray:
    """The explicit matrix: for each row of `z`, every pair of its entries adds to the edge of their nodes."""
    C = np.zeros((count, count))
    for row, at in zip(z, nodes, strict=True):
        for value, i in zip(row, at, strict=True):
            for other, j in zip(row, at, strict=True):
                C[i, j] += value * other
    return C


def gld(
    pivot: LogitRows, source: LogitRows, examples: int, k: int, kind: str, nodes: str, top_nodes: int = 100
) -> Tensor:
    values = []
    for e in range(examples):
        features = [gld_features(rows, e, k, kind, nodes, top_nodes) for rows in (pivot, source)]
        values.append(0.0 if None in features else l1(*features))
    return torch.tensor(values, dtype=torch.float64)


def gld_features(rows: LogitRows, e: int, k: int, kind: str, nodes: str, top_nodes: int) -> list[float] | None:
    inside = numbers(rows.example) == e
    if not inside.any():
        return None
    z, ids = graph_inputs(rows, k, kind)[inside], rows.ids[:, :k].numpy()[inside]
    if nodes == "rank":
        return sorted(graph(z, np.tile(np.arange(k), (len(z), 1)), k).sum(1) / (len(z) * k), reverse=True)
    sums = graph(z, ids, int(ids.max()) + 1).sum(1) / (len(z) * k)
    return sorted([*sums, *[0.0] * top_nodes], reverse=True)[:top_nodes]


def bracket(C: np.ndarray, D: np.ndarray) -> tuple[float, float]:
    """Lower and upper bound of GW_1 with uniform weights, from the row means alone."""
    c, d = C.mean(1), D.mean(1)
    lower = float(np.mean(np.abs(np.sort(c) - np.sort(d))))
    return lower, lower + float(np.abs(C - c[:, None]).mean() + np.abs(D - d[:, None]).mean())


def gromov_wasserstein(C: np.ndarray, D: np.ndarray, plan: np.ndarray) -> float:
    """Sum over i, j, i', j' of |C_ij - D_i'j'| plan_ii' plan_jj'."""
    return float(np.einsum("ijkl,ik,jl->", np.abs(C[:, :, None, None] - D[None, None]), plan, plan))


def best_matching(C: np.ndarray, D: np.ndarray) -> float:
    """The least of it over all one-to-one matchings."""
    n = len(C)
    return min(gromov_wasserstein(C, D, np.eye(n)[list(order)] / n) for order in permutations(range(n)))


def forward_kl(pivot: LogitRows, source: LogitRows, tail: str = "bucket", top_k: int | None = None) -> Tensor:
    values, token = [], pivot.token.tolist() if pivot.token is not None else [None] * len(pivot)
    for m in range(len(pivot)):
        ids, theirs = source.ids[m].tolist(), numbers(source.logprobs)[m]
        mine, gold = numbers(pivot.logprobs)[m], float(numbers(pivot.gold)[m])
        kept = [i for i in range(len(ids)) if ids[i] >= 0 and theirs[i] > -math.inf]
        kept = sorted(kept, key=lambda i: -theirs[i])[:top_k]
        p, q = {ids[i]: math.exp(theirs[i]) for i in kept}, {ids[i]: math.exp(mine[i]) for i in kept}
        if tail == "bucket":
            p["other"], q["other"] = 1 - sum(p.values()), 1 - sum(q.values())
        if tail == "residual_to_gold":
            rest = 1 - sum(p.values())
            p[token[m]], q[token[m]] = p.get(token[m], 0) + rest, math.exp(gold)
        values.append(sum(p[i] * (math.log(p[i]) - math.log(q[i])) for i in p))
    return torch.tensor(values, dtype=torch.float64)


# weighting


def gold_posterior(
    pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs], level: str, temperature: float = 1
) -> list[Tensor]:
    def weigh(score: dict[int, float]) -> dict[int, float]:
        return dict(zip(score, softmax([v / temperature for v in score.values()]), strict=True)) if score else {}

    return _each_pair(pivot, sources, pairs, level, weigh)


def minimum_cross_entropy(pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]) -> list[Tensor]:
    def weigh(score: dict[int, float]) -> dict[int, float]:
        best = max(score, key=lambda s: (score[s], -s)) if score else None
        return {s: float(s == best) for s in score}

    return _each_pair(pivot, sources, pairs, "example", weigh)


def _each_pair(pivot, sources, pairs, level, weigh) -> list[Tensor]:
    match = [dict(zip(p.pivot.tolist(), p.source.tolist(), strict=True)) for p in pairs]
    weight: dict[tuple[int, int], float] = {}
    for place in _places(pivot, match, level):
        score = _position(place, sources, match) if level == "position" else _span(place, pivot, sources, match)
        for s, value in weigh(score).items():
            weight |= {(s, n): value for n in place}
    return [torch.tensor([weight[s, n] for n in p.pivot.tolist()]) for s, p in enumerate(pairs)]


def _places(pivot: LogitRows, match: list[dict[int, int]], level: str) -> list[list[int]]:
    """Pivot rows that share their weights."""
    places: list[list[int]] = []
    for n, e in enumerate(pivot.example.tolist()):
        new_text = n == 0 or pivot.example[n - 1] != e
        takers = [m for m in match if any(pivot.example[i] == e for i in m)]
        shared = level == "span" and all(n in m for m in takers)
        if new_text or shared or level == "position":
            places.append([])
        places[-1].append(n)
    return places


def _position(place: list[int], sources: Sequence[LogitRows], match: list[dict[int, int]]) -> dict[int, float]:
    return {s: float(sources[s].gold[m[place[0]]]) for s, m in enumerate(match) if place[0] in m}


def _span(place, pivot: LogitRows, sources: Sequence[LogitRows], match: list[dict[int, int]]) -> dict[int, float]:
    e = int(pivot.example[place[0]])
    rows = {s: [r for r in range(len(sources[s])) if sources[s].example[r] == e] for s in range(len(sources))}
    takers = [s for s, m in enumerate(match) if any(pivot.example[n] == e for n in m)]
    if not takers:
        return {}
    read = min(max(int(sources[s].prefix[r]) for r in rows[s]) for s in takers)
    after = place[-1] + 1
    inside_text = after < len(pivot) and int(pivot.example[after]) == e
    score = {}
    for s in takers:
        begin = match[s].get(place[0], rows[s][0])
        readable = [r for r in rows[s] if 0 <= int(sources[s].prefix[r]) <= read]
        end = match[s][after] if inside_text else max(readable) + 1
        score[s] = sum(float(sources[s].gold[r]) for r in range(begin, end))
    return score
