"""Slow, obvious float64 versions of the merge methods: one entry at a time, in plain Python."""

import hashlib
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


def _columns(base, models):
    """Of each entry the changes of all models."""
    origin = _flat(base)
    return origin, list(zip(*([x - b for x, b in zip(_flat(m), origin, strict=True)] for m in models), strict=True))


def linear(base, models, weights, normalise=True):
    total = sum(weights) if normalise else 1.0
    columns = zip(*(_flat(model) for model in models), strict=True)
    return _shaped([sum(w * x for w, x in zip(weights, c, strict=True)) / total for c in columns], base)


# Thinned changes


def joined(base, thinned, weights, *, elect=False, normalise=False, scale=1.0):
    """The base plus thinned changes, one list of entries a model."""
    origin, merged = _flat(base), []
    for b, c in zip(origin, zip(*thinned, strict=True), strict=True):
        if elect and normalise:
            change = _agreeing(c, weights, weights)
        elif elect:
            election = math.fsum(w * x for w, x in zip(weights, c, strict=True))
            change = math.fsum(w * x for w, x in zip(weights, c, strict=True) if x * election > 0)
        else:
            change = sum(w * x for w, x in zip(weights, c, strict=True)) / (sum(weights) if normalise else 1.0)
        merged.append(b + scale * change)
    return _shaped(merged, base)


def changes(base, models):
    return [[x - b for x, b in zip(_flat(model), _flat(base), strict=True)] for model in models]


def largest(change, density):
    keep = _largest([abs(c) for c in change], kept(density, len(change)))
    return [c if k else 0.0 for c, k in zip(change, keep, strict=True)]


def middle(change, density, gamma):
    """Without the gamma·n largest, and of the others the density·n largest."""
    outliers = math.floor(Fraction(str(gamma)) * len(change))
    out = _largest([abs(c) for c in change], outliers) if outliers else [False] * len(change)
    inside = math.floor(Fraction(str(density)) * len(change))
    within = _largest([abs(c) for c in change], max(1, min(len(change), inside + outliers)))
    return [c if w and not o else 0.0 for c, w, o in zip(change, within, out, strict=True)]


def draw(stream, index):
    """Number `index` of a stream in [0, 1): lowbias32 twice, in Python's whole numbers."""

    def mixed(x):
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    digest = hashlib.sha256(stream.encode()).digest()
    first, second = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4))
    return mixed(mixed((index + first) % 2**32) ^ second) / 2**32


def dropped(change, density, stream):
    return [c / density if draw(stream, i) < density else 0.0 for i, c in enumerate(change)]


def dropped_by_rank(change, density, epsilon, row, stream):
    left = []
    for start in range(0, len(change), row):
        part = change[start : start + row]
        order = sorted(range(len(part)), key=lambda i: (abs(part[i]), i))
        for i, c in enumerate(part):
            rank = 0.0 if len(part) == 1 else 2 * order.index(i) / (len(part) - 1) - 1
            chance = density + epsilon * rank
            left.append(c / chance if draw(stream, start + i) < chance else 0.0)
    return left


def task_arithmetic(base, models, weights):
    return joined(base, changes(base, models), weights)


def ties(base, models, weights, density):
    return joined(base, [largest(c, density) for c in changes(base, models)], weights, elect=True, normalise=True)


# Directions


def _combined(vectors, coefficients, base):
    return _shaped(
        [sum(c * x for c, x in zip(coefficients, xs, strict=True)) for xs in zip(*vectors, strict=True)], base
    )


def _dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def slerp(base, models, t):
    a, b = map(_flat, models)
    lengths = math.sqrt(_dot(a, a) * _dot(b, b))
    angle = math.acos(max(-1.0, min(1.0, _dot(a, b) / lengths))) if lengths else 0.0
    if math.sin(angle) < 1e-6:
        return _combined([a, b], [1 - t, t], base)
    return _combined([a, b], [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)], base)


def multislerp(base, models, weights):
    """With the steps as they were proposed: mean of unit vectors, tangents there, and along their mean."""
    vectors = [_flat(model) for model in models]
    norms = [math.sqrt(_dot(v, v)) for v in vectors]
    units = [[x / norm if norm else 0.0 for x in v] for v, norm in zip(vectors, norms, strict=True)]
    weights = [w / sum(weights) for w in weights]
    mean = [math.fsum(w * x for w, x in zip(weights, xs, strict=True)) for xs in zip(*units, strict=True)]
    length = math.sqrt(_dot(mean, mean))
    mean = [x / length if length else 0.0 for x in mean]
    tangents = [[x - _dot(unit, mean) * m for x, m in zip(unit, mean, strict=True)] for unit in units]
    step = [math.fsum(w * x for w, x in zip(weights, xs, strict=True)) for xs in zip(*tangents, strict=True)]
    size = math.sqrt(_dot(step, step))
    turn = math.sin(size) / size if size else 1.0
    norm = math.fsum(w * n for w, n in zip(weights, norms, strict=True))
    return _shaped([norm * (m * math.cos(size) + s * turn) for m, s in zip(mean, step, strict=True)], base)


def sphere_spread(point, models, weights):
    """Σ w · squared angle to each model: what the Karcher mean makes as small as it can."""
    angles = []
    for model in models:
        a, b = _flat(point), _flat(model)
        angles.append(math.acos(max(-1.0, min(1.0, _dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b))))))
    return math.fsum(w * angle**2 for w, angle in zip(weights, angles, strict=True))


def model_stock(base, models):
    deltas, pairs = changes(base, models), []
    for i, a in enumerate(deltas):
        for b in deltas[i + 1 :]:
            lengths = math.sqrt(_dot(a, a) * _dot(b, b))
            pairs.append(_dot(a, b) / lengths if lengths else 0.0)
    cosine, n = math.fsum(pairs) / len(pairs), len(models)
    t = n * cosine / (1 + (n - 1) * cosine) if abs(1 + (n - 1) * cosine) > 1e-6 else 0.0
    return joined(base, deltas, [t / n] * n)


def sce(base, models, select_topk, selection="changes"):
    origin, columns = _columns(base, models)
    means = [sum(c) / len(c) for c in columns]
    variance = [sum((x - mean) ** 2 for x in c) / len(c) for c, mean in zip(columns, means, strict=True)]
    varying = sum(v > 0 for v in variance)
    selected = (
        _largest(variance, kept(select_topk, varying) if varying else 0) if select_topk < 1 else [True] * len(origin)
    )
    masked = [tuple(x if s else 0.0 for x in c) for c, s in zip(columns, selected, strict=True)]
    squares = [sum(c[s] ** 2 for c in masked) for s in range(len(models))]
    omega = [q / sum(squares) if sum(squares) else 0.0 for q in squares]
    if selection == "weights":
        masked = columns
    return _shaped([b + _agreeing(c, omega, [1.0] * len(c)) for b, c in zip(origin, masked, strict=True)], base)
