"""Slow, obvious float64 versions of the terms on mapped rows: one row at a time, distributions as dictionaries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fusion.core.rows import LogitRows, MappedRows
from tests.helpers.reference import numbers

Distribution = dict[object, float]


def outcomes(
    pivot: LogitRows, source: MappedRows, top_k: int | None = None
) -> Iterator[tuple[Distribution, Distribution]]:
    """What source and pivot say of the kept ids and of `other`, row by row."""
    for m in range(len(source)):
        ids, theirs, mine = source.ids[m].tolist(), numbers(source.logprobs)[m], numbers(pivot.logprobs)[m]
        kept = [i for i in range(len(ids)) if ids[i] >= 0 and theirs[i] > -math.inf]
        kept = sorted(kept, key=lambda i: -theirs[i])[:top_k]
        p: Distribution = {ids[i]: math.exp(theirs[i]) for i in kept}
        q: Distribution = {ids[i]: math.exp(mine[i]) for i in kept}
        yield p | {"other": 1 - sum(p.values())}, q | {"other": 1 - sum(q.values())}


def gold_outcomes(
    pivot: LogitRows, source: MappedRows, top_k: int | None = None
) -> Iterator[tuple[Distribution, Distribution]]:
    """The same with "gold" as an outcome of its own, where the source knows it."""
    for m, (p, q) in enumerate(outcomes(pivot, source, top_k)):
        gold = float(source.pivot_token_logprob[m])
        for each, value in ((p, gold), (q, float(pivot.gold[m]))):
            each.pop(int(pivot.token[m]), None)  # type: ignore[index]
            each |= {"gold": math.exp(value)} if not math.isnan(gold) else {}
            each["other"] = 1 - sum(v for name, v in each.items() if name != "other")
        yield p, q


def each_row(pairs: Iterator[tuple[Distribution, Distribution]], value: Callable[..., float]) -> Tensor:
    return torch.tensor([value(p, q) for p, q in pairs], dtype=torch.float64)


def kl(p: Distribution, q: Distribution) -> float:
    return sum(p[i] * (math.log(p[i]) - math.log(q[i])) for i in p if p[i] > 0)


def mixed(p: Distribution, q: Distribution, share: float) -> Distribution:
    return {i: share * p[i] + (1 - share) * q[i] for i in p}


def jensen_shannon(p: Distribution, q: Distribution, share: float) -> float:
    return share * kl(p, mixed(p, q, share)) + (1 - share) * kl(q, mixed(p, q, share))


def l1(p: Distribution, q: Distribution) -> float:
    return sum(abs(p[i] - q[i]) for i in p)


def plackett_luce(worth: list[float], logits: list[float]) -> float:
    """Item by item: the worth of each times minus the log of its share among those that are left."""
    total = 0.0
    for k in range(len(logits)):
        left = sum(math.exp(s) for s in logits[k:])
        total += worth[k] * -math.log(math.exp(logits[k]) / left)
    return total


def in_order(p: Distribution, q: Distribution) -> float:
    """The list of `objectives.plackett_luce`: the true token, the others by falling probability and id, `other`."""
    names = sorted((n for n in p if n not in ("gold", "other")), key=lambda n: (-p[n], n))  # type: ignore[operator]
    order = [*(["gold"] if "gold" in p else []), *names, "other"]
    return plackett_luce([p[n] for n in order], [math.log(q[n]) for n in order])


def nkd(p: Distribution, q: Distribution, gamma: float) -> float:
    target = -p["gold"] * math.log(q["gold"]) if "gold" in p else 0.0
    others = [n for n in p if n != "gold"]
    P, Q = sum(p[n] for n in others), sum(q[n] for n in others)
    return target - gamma * sum(p[n] / P * math.log(q[n] / Q) for n in others)


def one_vs_rest(p: Distribution, q: Distribution, beta: float) -> float:
    return sum(abs(p[n] - q[n]) ** beta * kl({1: p[n], 0: 1 - p[n]}, {1: q[n], 0: 1 - q[n]}) for n in p)


def margins(p: Distribution, q: Distribution, delta: float) -> float:
    """Over ordered pairs that the source tells apart by more than `delta`."""
    names = [n for n in p if n != "other"]
    pairs = [(i, j) for i in names for j in names if math.log(p[i] / p[j]) > delta]
    return sum(max(0.0, delta - math.log(q[i] / q[j])) for i, j in pairs)


def over_list(p: Distribution, q: Distribution, temperature: float) -> float:
    """KL between softmaxes of the kept entries' logits alone."""
    names = [n for n in p if n != "other"]
    sides = [{n: each[n] ** (1 / temperature) for n in names} for each in (p, q)]
    return kl(*({n: side[n] / sum(side.values()) for n in names} for side in sides))
