"""What may be said of results: each number with the interval it could have had on other examples of the same kind.

All intervals are 95% percentile-bootstrap intervals over examples (Efron & Tibshirani 1993, chapter 13). They cover the
choice of examples, not the luck of a training run: another seed of training may land outside. With few examples (say,
under 30) they are too narrow, and where all examples agree their width is zero; so every interval carries its n.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusion_eval.results import MEAN, Item, Result

RESAMPLES = 2000
COVERAGE = 0.95
_AT_ONCE = 4_000_000  # resampled indices held in memory at a time

Scores = dict[str, dict[str, "Interval"]]
"""Domain (or `mean`) -> metric -> interval."""


@dataclass(frozen=True)
class Interval:
    """A value, the ends of its 95% interval, and the number of examples; the ends of a single example are infinite."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width: what stands after ±."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside."""
        return value < self.low or value > self.high


@dataclass(frozen=True)
class Metric:
    """A ratio of two sums over examples."""

    label: str
    parts: Callable[[Item], tuple[float, float] | None]
    """Numerator and denominator (above 0) of an item; None where the item cannot tell."""
    lower_is_better: bool = False
    scale: float = 1.0
    """What a value is multiplied by to be shown under the label."""
    digits: int = 3
    """Digits shown after the point."""

    def better(self, difference: float) -> bool:
        """Whether a model that differs by this much from another is the better one."""
        return difference < 0 if self.lower_is_better else difference > 0

    def show(self, value: float) -> str:
        """The value as the label announces it: scaled and rounded."""
        return "∞" if math.isinf(value) else f"{value * self.scale:.{self.digits}f}"


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "accuracy %",
        lambda item: None if item.score is None else (item.score * item.weight, item.weight),
        scale=100.0,
        digits=1,
    ),
    "bits_per_byte": Metric(
        "bits per byte",
        lambda item: None if item.nats is None else (item.nats / math.log(2), item.bytes),
        lower_is_better=True,
    ),
    "exact_match": Metric(
        "exact match %",
        lambda item: None if item.exact is None else (float(item.exact), 1.0),
        scale=100.0,
        digits=1,
    ),
}


def mean(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean of `values`, one per example. Raises ValueError for an empty list or a value that is not finite."""
    values = np.asarray(values, dtype=np.float64)
    return ratio(values, np.ones_like(values), seed=seed, resamples=resamples)


def ratio(numerators: ArrayLike, denominators: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Sum of numerators over sum of denominators, an entry of each per example; examples are drawn, with both entries.

    So long examples count more, as they should in bits per byte. Raises ValueError when a denominator is not above 0.
    """
    return _sample(
        np.stack([np.asarray(numerators, float), np.asarray(denominators, float)]), seed, resamples
    ).interval()


def paired(a: Sequence[Item], b: Sequence[Item], metric: str, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Metric of `a` minus metric of `b`, two models on the same items: each draw takes an item with both its outcomes.

    Much narrower than two separate intervals, for what makes an item hard makes it hard for both. Items are joined by
    id. Raises ValueError when one side has items the other lacks, or when an id stands for two different texts.
    """
    return _sample(_paired_columns(a, b, metric), seed, resamples).interval()


def summarise(result: Result, *, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
    """Every metric in every domain, and their unweighted mean over domains; a metric no item knows is left out.

    The mean draws examples within each domain (stratified), so a domain's share does not depend on its size. The
    numbers depend on the items and the seed, not on the order of the items nor on which other domains there are.
    """
    domains = _by_domain(result.items)
    columns = {(d, m): _columns(items, m) for d, items in domains.items() for m in METRICS if _knows(items, m)}
    return _scores(columns, seed, resamples)


def compare(result: Result, baseline: Result, *, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
    """`result` minus `baseline`, paired, in the shape of `summarise`; a metric only one of them has is left out.

    Raises ValueError when the two were measured on different suites or items.
    """
    if result.suite != baseline.suite:
        raise ValueError(
            f"{result.model} was evaluated on {result.suite}, {baseline.model} on {baseline.suite}: nothing to "
            "compare. Evaluate both on the same suite."
        )
    try:
        columns = _columns_of_both(result.items, baseline.items)
    except ValueError as error:
        raise ValueError(f"{result.model} against {baseline.model} on {result.suite}: {error}") from error
    return _scores(columns, seed, resamples)


def by_subset(result: Result) -> dict[str, Result]:
    """For each domain that has subsets, such as the 57 of MMLU, a result whose domains are these, all weights 1."""
    items = [item for item in result.items if item.subset is not None]
    parts = _by_domain(items)
    return {
        domain: result.model_copy(
            update={"suite": f"{result.suite}: {domain}", "items": [_of_subset(i) for i in found]}
        )
        for domain, found in parts.items()
    }


def _of_subset(item: Item) -> Item:
    return item.model_copy(update={"domain": item.subset, "weight": 1.0})


@dataclass(frozen=True)
class _Sample:
    """A statistic, and what it came to on each resampled set of examples."""

    value: float
    draws: NDArray[np.float64]
    n: int

    def interval(self) -> Interval:
        if self.n < 2 or np.isnan(self.draws).any():
            return Interval(self.value, -math.inf, math.inf, self.n)
        low, high = np.quantile(self.draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
        return Interval(self.value, float(low), float(high), self.n)


def _statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratio of the first two sums, less the ratio of the next two where there are four; sums along the last axis."""
    ours = sums[..., 0] / sums[..., 1]
    return ours if sums.shape[-1] == 2 else ours - sums[..., 2] / sums[..., 3]


def _sample(columns: NDArray[np.float64], seed: int, resamples: int, stream: str = "") -> _Sample:
    """`columns` is [2 or 4, n]: numerators and denominators, of one model or of two."""
    n = columns.shape[1]
    if n == 0:
        raise ValueError("There are no examples, so there is no mean; check what was evaluated.")
    if not np.isfinite(columns).all() or not (columns[1::2] > 0).all():
        raise ValueError("Every value must be finite and every denominator above 0; check the examples.")
    value = float(_statistic(columns.sum(1)))
    if n == 1:  # resampling one example gives it back every time, and would claim certainty
        return _Sample(value, np.full(resamples, np.nan), n)
    return _Sample(value, _statistic(resampled_sums(columns, seed, resamples, stream)), n)


def resampled_sums(columns: NDArray[np.float64], seed: int, resamples: int, stream: str = "") -> NDArray[np.float64]:
    """[resamples, c]: sums of each of c columns [c, n] over n examples drawn with replacement, the same for all columns."""
    n = columns.shape[1]
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    step = max(1, _AT_ONCE // n)
    return np.concatenate(
        [
            columns[:, rng.integers(n, size=(min(step, resamples - start), n))].sum(-1).T
            for start in range(0, resamples, step)
        ]
    )


def _scores(columns: Mapping[tuple[str, str], NDArray[np.float64]], seed: int, resamples: int) -> Scores:
    scores: Scores = {}
    for metric in METRICS:
        # a stream of random numbers for each domain: were it shared, the draws of all domains would go together
        samples = {d: _sample(values, seed, resamples, stream=d) for (d, m), values in columns.items() if m == metric}
        if samples:
            samples[MEAN] = _mean_of(list(samples.values()))
        for domain, sample in samples.items():
            scores.setdefault(domain, {})[metric] = sample.interval()
    if MEAN in scores:
        scores[MEAN] = scores.pop(MEAN)  # last, also where a later metric brought a later domain
    return scores


def _mean_of(samples: Sequence[_Sample]) -> _Sample:
    draws = np.mean([sample.draws for sample in samples], axis=0)
    return _Sample(float(np.mean([s.value for s in samples])), draws, sum(s.n for s in samples))


def parts_of(results: Sequence[Result], domain: str, metric: str) -> NDArray[np.float64]:
    """[2 m, n]: numerators and denominators of a metric for m models on the items of a domain, which must be the same.

    Empty where a model does not know the metric there. Raises ValueError for models on different items.
    """
    items = [[item for item in result.items if item.domain == domain] for result in results]
    for result, mine in zip(results[1:], items[1:], strict=True):
        try:
            _check_same(items[0], mine)
        except ValueError as error:
            raise ValueError(f"{results[0].model} against {result.model} in {domain}: {error}") from error
    if not all(_knows(mine, metric) for mine in items):
        return np.zeros((2 * len(results), 0))
    return np.concatenate([_columns(mine, metric) for mine in items])


def _by_domain(items: Sequence[Item]) -> dict[str, list[Item]]:
    domains: dict[str, list[Item]] = {}
    for item in items:
        domains.setdefault(item.domain, []).append(item)
    return domains


def _known(items: Sequence[Item], metric: str) -> dict[str, tuple[float, float]]:
    """Parts of the metric by item id, in the order of the ids."""
    parts = {item.id: METRICS[metric].parts(item) for item in sorted(items, key=lambda item: item.id)}
    return {id: known for id, known in parts.items() if known is not None}


def _knows(items: Sequence[Item], metric: str) -> bool:
    return any(METRICS[metric].parts(item) is not None for item in items)


def _columns(items: Sequence[Item], metric: str) -> NDArray[np.float64]:
    return np.array(list(_known(items, metric).values()), dtype=np.float64).reshape(-1, 2).T


def _paired_columns(a: Sequence[Item], b: Sequence[Item], metric: str) -> NDArray[np.float64]:
    _check_same(a, b)
    ours, theirs = _known(a, metric), _known(b, metric)
    _check_ids(set(ours), set(theirs), f"items with {metric}")
    return np.array([(*ours[id], *theirs[id]) for id in ours], dtype=np.float64).reshape(-1, 4).T


def _columns_of_both(a: Sequence[Item], b: Sequence[Item]) -> dict[tuple[str, str], NDArray[np.float64]]:
    _check_same(a, b)
    ours, theirs = _by_domain(a), _by_domain(b)
    both = [(d, m) for d in ours for m in METRICS if _knows(ours[d], m) and _knows(theirs[d], m)]
    return {(d, m): _paired_columns(ours[d], theirs[d], m) for d, m in both}


def _check_same(a: Sequence[Item], b: Sequence[Item]) -> None:
    _check_ids({item.id for item in a}, {item.id for item in b}, "items")
    texts = {item.id: (item.domain, item.bytes, item.prompt, item.expected) for item in a}
    other = sorted(i.id for i in b if texts[i.id] != (i.domain, i.bytes, i.prompt, i.expected))
    if other:
        raise ValueError(
            f"{len(other)} of {len(a)} ids stand for different texts, the first is {other[0]!r}. Evaluate both again "
            "on the same version of the data."
        )


def _check_ids(a: set[str], b: set[str], what: str) -> None:
    if a == b:
        return
    only_a, only_b = sorted(a - b), sorted(b - a)
    raise ValueError(
        f"the {what} differ: {len(a)} against {len(b)}, {len(only_a)} only in the first and {len(only_b)} only in the "
        f"second (such as {(only_a or only_b)[0]!r}). Evaluate both on the same items."
    )
