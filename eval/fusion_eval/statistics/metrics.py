"""Metrics as ratios of sums over samples, and the parts of these ratios as arrays for one model or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion_eval.results import Result, Sample
from fusion_eval.statistics.intervals import Interval


@dataclass(frozen=True)
class Metric:
    """A ratio of sums over examples."""

    label: str
    parts: Callable[[Sample], Sequence[float] | None]
    """The numerator (or one for each bin) and, last, the denominator, above 0, of a sample; None where it lacks the metric."""
    lower_is_better: bool = False
    scale: float = 1.0
    """What a value is multiplied by to be shown under the label."""
    digits: int = 3
    """Digits shown after the point."""
    is_share: bool = False
    """Whether the scores of samples are in [0, 1], so that the value is a share of right answers."""

    def better(self, difference: float) -> bool:
        """Whether a model that differs by this much from another is the better one."""
        return difference < 0 if self.lower_is_better else difference > 0

    def show(self, value: float) -> str:
        """The value as the label announces it: scaled and rounded."""
        return "∞" if math.isinf(value) else f"{value * self.scale:.{self.digits}f}"

    def show_signed(self, value: float) -> str:
        """The same with a sign, for a difference."""
        return f"{'-' if value < 0 else '+'}{self.show(abs(value))}"

    def show_spread(self, interval: Interval, *, signed: bool = False) -> str:
        """The interval as it is written behind its value: ±5.0, or both ends (11.1 to 21.2) where it is not symmetric."""
        if interval.is_symmetric:
            return f"±{self.show(interval.half)}"
        show = self.show_signed if signed else self.show
        return f"({show(interval.low)} to {show(interval.high)})"


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "accuracy %",
        lambda sample: None if sample.score is None else (sample.score * sample.weight, sample.weight),
        scale=100.0,
        digits=1,
        is_share=True,
    ),
    "bits_per_byte": Metric(
        "bits per byte",
        lambda sample: None if sample.nll is None else (sample.nll / math.log(2), sample.bytes),
        lower_is_better=True,
    ),
    "exact_match": Metric(
        "exact match %",
        lambda sample: None if sample.exact_match is None else (float(sample.exact_match), 1.0),
        scale=100.0,
        digits=1,
        is_share=True,
    ),
    "calibration_error": Metric(
        "calibration error %", lambda sample: sample.calibration, lower_is_better=True, scale=100.0, digits=1
    ),
}


def by_domain(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Group samples by domain, domains in the order of their first sample."""
    domains: dict[str, list[Sample]] = {}
    for sample in samples:
        domains.setdefault(sample.domain, []).append(sample)
    return domains


def _parts_by_id(samples: Sequence[Sample], metric: str) -> dict[str, Sequence[float]]:
    """Parts of the metric by sample id, in the order of the ids."""
    parts = {sample.id: METRICS[metric].parts(sample) for sample in sorted(samples, key=lambda sample: sample.id)}
    return {id: numbers for id, numbers in parts.items() if numbers is not None}


def has_metric(samples: Sequence[Sample], metric: str) -> bool:
    """Whether any of the samples has the metric."""
    return any(METRICS[metric].parts(sample) is not None for sample in samples)


def metric_columns(samples: Sequence[Sample], metric: str) -> NDArray[np.float64]:
    """Parts [1, parts, n] of the samples that have the metric, in the order of their ids."""
    return np.array(list(_parts_by_id(samples, metric).values()), dtype=np.float64).T[None]


def paired_columns(a: Sequence[Sample], b: Sequence[Sample], metric: str) -> NDArray[np.float64]:
    """Parts [2, parts, n] of two models, sample by sample. Raises ValueError where the samples differ."""
    check_same_samples(a, b)
    first, second = _parts_by_id(a, metric), _parts_by_id(b, metric)
    _check_ids(set(first), set(second), f"samples with {metric}")
    rows = [list(first.values()), [second[id] for id in first]]
    return np.array(rows, dtype=np.float64).transpose(0, 2, 1)


def shared_columns(a: Sequence[Sample], b: Sequence[Sample]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """`paired_columns` by domain and metric, for those that both models have."""
    first, second = by_domain(a), by_domain(b)
    both = [(d, m) for d in first for m in METRICS if has_metric(first[d], m) and has_metric(second[d], m)]
    return {(d, m): paired_columns(first[d], second[d], m) for d, m in both}


def check_same_samples(a: Sequence[Sample], b: Sequence[Sample]) -> None:
    """Raise ValueError where two models were not given the same samples."""
    _check_ids({sample.id for sample in a}, {sample.id for sample in b}, "samples")
    texts = {sample.id: (sample.domain, sample.bytes, sample.prompt, sample.target) for sample in a}
    other = sorted(i.id for i in b if texts[i.id] != (i.domain, i.bytes, i.prompt, i.target))
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
        f"second (such as {(only_a or only_b)[0]!r}). Evaluate both on the same samples."
    )


def domain_columns(results: Sequence[Result], domain: str, metric: str) -> NDArray[np.float64] | None:
    """Parts [models, parts, n] of a metric for several models on the samples of a domain, which must be the same.

    None where a model lacks the metric there. Raises ValueError for models on different samples.
    """
    samples = [[sample for sample in result.samples if sample.domain == domain] for result in results]
    for result, others in zip(results[1:], samples[1:], strict=True):
        try:
            check_same_samples(samples[0], others)
        except ValueError as error:
            raise ValueError(f"{results[0].model} against {result.model} in {domain}: {error}") from error
    if not all(has_metric(each, metric) for each in samples):
        return None
    return np.concatenate([metric_columns(each, metric) for each in samples])
