"""Slow, obvious float64 versions of the merge methods: one entry at a time, in plain Python."""

import math
from fractions import Fraction

import torch


def _flat(tensor):
    return [float(x) for x in tensor.double().reshape(-1)]


def _shaped(values, base):
    return torch.tensor(values, dtype=torch.float64).reshape(base.shape)


def kept(fraction, count):
    """How many of `count` a fraction means: rounded down as a decimal, at least one."""
    return max(1, math.floor(Fraction(str(fraction)) * count))


def _largest(numbers, count):
    """Which of `numbers` are at least as large as the `count`-th largest."""
    least = sorted(numbers, reverse=True)[count - 1] if numbers and count else math.inf
    return [x >= least for x in numbers]


def _agreeing(changes, weights, votes):
    """Of one entry: the weighted mean of the changes that have the elected sign, 0 where there are none."""
    election = math.fsum(v * c for v, c in zip(votes, changes, strict=True))
    agree = [(w, c) for w, c in zip(weights, changes, strict=True) if c * election > 0]
    total = math.fsum(w for w, _ in agree)
    return math.fsum(w * c for w, c in agree) / total if total > 0 else 0.0


def linear(base, models, weights, normalise=True):
    total = sum(weights) if normalise else 1.0
    columns = zip(*(_flat(model) for model in models), strict=True)
    return _shaped([sum(w * x for w, x in zip(weights, c, strict=True)) / total for c in columns], base)


def task_arithmetic(base, models, weights):
    origin, columns = _flat(base), zip(*(_flat(model) for model in models), strict=True)
    return _shaped(
        [b + sum(w * (x - b) for w, x in zip(weights, c, strict=True)) for b, c in zip(origin, columns, strict=True)],
        base,
    )


def ties(base, models, weights, density):
    origin, trimmed = _flat(base), []
    for model in models:
        change = [x - b for x, b in zip(_flat(model), origin, strict=True)]
        keep = _largest([abs(c) for c in change], kept(density, len(change)))
        trimmed.append([c if k else 0.0 for c, k in zip(change, keep, strict=True)])
    columns = zip(*trimmed, strict=True)
    return _shaped([b + _agreeing(c, weights, weights) for b, c in zip(origin, columns, strict=True)], base)


def sce(base, models, select_topk):
    origin = _flat(base)
    columns = list(zip(*([x - b for x, b in zip(_flat(m), origin, strict=True)] for m in models), strict=True))
    means = [sum(c) / len(c) for c in columns]
    variance = [sum((x - mean) ** 2 for x in c) / len(c) for c, mean in zip(columns, means, strict=True)]
    varying = sum(v > 0 for v in variance)
    selected = (
        _largest(variance, kept(select_topk, varying) if varying else 0) if select_topk < 1 else [True] * len(origin)
    )
    masked = [tuple(x if s else 0.0 for x in c) for c, s in zip(columns, selected, strict=True)]
    squares = [sum(c[s] ** 2 for c in masked) for s in range(len(models))]
    omega = [q / sum(squares) if sum(squares) else 0.0 for q in squares]
    return _shaped([b + _agreeing(c, omega, [1.0] * len(c)) for b, c in zip(origin, masked, strict=True)], base)
