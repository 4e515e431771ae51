"""What is measured of items, as a few numbers each, and the items of several models side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion_eval.results import Item, Result


@dataclass(frozen=True)
class Metric:
    """A ratio of sums over examples."""

    label: str
    parts: Callable[[Item], Sequence[float] | None]
    """Of an item the numerator (or one for each bin) and, last, the denominator, above 0; None where the item cannot tell."""
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
    "calibration_error": Metric(
        "calibration error %", lambda item: item.calibration, lower_is_better=True, scale=100.0, digits=1
    ),
}


def by_domain(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Items of each domain, domains in the order of their first item."""
    domains: dict[str, list[Item]] = {}
    for item in items:
        domains.setdefault(item.domain, []).append(item)
    return domains


def _known(items: Sequence[Item], metric: str) -> dict[str, Sequence[float]]:
    """Parts of the metric by item id, in the order of the ids."""
    parts = {item.id: METRICS[metric].parts(item) for item in sorted(items, key=lambda item: item.id)}
    return {id: known for id, known in parts.items() if known is not None}


def knows(items: Sequence[Item], metric: str) -> bool:
    """Whether any of the items can tell the metric."""
    return any(METRICS[metric].parts(item) is not None for item in items)


def columns_of(items: Sequence[Item], metric: str) -> NDArray[np.float64]:
    """[1, parts, n]: the parts of the items that can tell, in the order of their ids."""
    return np.array(list(_known(items, metric).values()), dtype=np.float64).T[None]


def paired_columns(a: Sequence[Item], b: Sequence[Item], metric: str) -> NDArray[np.float64]:
    """[2, parts, n]: those of two models, item by item. Raises ValueError where the items differ."""
    check_same(a, b)
    ours, theirs = _known(a, metric), _known(b, metric)
    _check_ids(set(ours), set(theirs), f"items with {metric}")
    return np.array([[known[id] for id in ours] for known in (ours, theirs)], dtype=np.float64).transpose(0, 2, 1)


def columns_of_both(a: Sequence[Item], b: Sequence[Item]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """`paired_columns` of every domain and metric that both can tell."""
    ours, theirs = by_domain(a), by_domain(b)
    both = [(d, m) for d in ours for m in METRICS if knows(ours[d], m) and knows(theirs[d], m)]
    return {(d, m): paired_columns(ours[d], theirs[d], m) for d, m in both}


def check_same(a: Sequence[Item], b: Sequence[Item]) -> None:
    """Raise ValueError where two models were not given the same items."""
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


def parts_of(results: Sequence[Result], domain: str, metric: str) -> NDArray[np.float64] | None:
    """[models, parts, n]: the parts of a metric for several models on the items of a domain, which must be the same.

    None where a model does not know the metric there. Raises ValueError for models on different items.
    """
    items = [[item for item in result.items if item.domain == domain] for result in results]
    for result, mine in zip(results[1:], items[1:], strict=True):
        try:
            check_same(items[0], mine)
        except ValueError as error:
            raise ValueError(f"{results[0].model} against {result.model} in {domain}: {error}") from error
    if not all(knows(mine, metric) for mine in items):
        return None
    return np.concatenate([columns_of(mine, metric) for mine in items])
