"""How far a model has come from where it started towards a better one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusion_eval.results import MEAN, Item, Result
from fusion_eval.statistics import (
    COVERAGE,
    METRICS,
    RESAMPLES,
    Interval,
    by_domain,
    compare,
    paired_columns,
    resampled,
    summarise,
)


def best_of(results: Sequence[Result], metric: str, name: str) -> Result | None:
    """The items of whichever model is best in each domain, as one result called `name`; None where none has the metric.

    Domains without the metric are those of the first model.

    No model need be as good as this one. It is chosen by the same examples on which it is then measured, so its value is
    a little too good. `made` says who is best where. Raises ValueError when they were measured on different items.
    """
    for other in results[1:]:
        compare(other, results[0], resamples=1)  # for its errors
    best: dict[str, tuple[float, Result]] = {}
    for result in results:
        for domain, found in summarise(result, resamples=1).items():
            if domain == MEAN or metric not in found:
                continue
            value = found[metric].value
            if domain not in best or METRICS[metric].better(value - best[domain][0]):
                best[domain] = (value, result)
    if not best:
        return None
    items = [i for d, each in by_domain(results[0].items).items() for i in (_of(best[d][1], d) if d in best else each)]
    made = {domain: result.model for domain, (_, result) in best.items()}
    return Result(model=name, suite=results[0].suite, path=name, made=made, items=items)


def gap_closed(
    result: Result, start: Result, goal: Result, metric: str, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """(result - start) / (goal - start) in each domain and of the means: 0 is no better than `start`, 1 as good as `goal`.

    Only where `goal` is shown to be better than `start` (the paired 95% interval excludes 0), for elsewhere there is no
    gap. Below 0 a model has gone the wrong way, above 1 beyond the goal. Intervals draw examples as `compare` does, the
    same for all three. Raises ValueError when they were measured on different items.
    """
    apart = compare(goal, start, seed=seed, resamples=resamples)
    ours, theirs, best = (by_domain(one.items) for one in (result, start, goal))
    ratios = {
        domain: _ratios(_columns(ours[domain], theirs[domain], best[domain], metric), seed, resamples, domain)
        for domain, found in apart.items()
        if domain != MEAN and metric in found
    }
    counts = {domain: len(ours[domain]) for domain in ratios}
    if ratios:
        ratios[MEAN], counts[MEAN] = np.mean(list(ratios.values()), axis=0), sum(counts.values())
    return {
        domain: _interval(values, counts[domain])
        for domain, values in ratios.items()
        if apart[domain][metric].excludes(0) and METRICS[metric].better(apart[domain][metric].value)
    }


def _of(result: Result, domain: str) -> list[Item]:
    return [item for item in result.items if item.domain == domain]


def _columns(ours: list[Item], theirs: list[Item], best: list[Item], metric: str) -> NDArray[np.float64]:
    """[6, n]: numerator and denominator of each model."""
    first, second = paired_columns(ours, theirs, metric), paired_columns(ours, best, metric)
    return np.concatenate([first, second[2:]])


def _ratios(columns: NDArray[np.float64], seed: int, resamples: int, stream: str) -> NDArray[np.float64]:
    """[1 + resamples, 3]: the metric of each model, on the examples as they are and on each draw of them."""
    sums = np.concatenate([columns.sum(1)[None], resampled(columns, seed, resamples, stream)])
    return sums[:, 0::2] / sums[:, 1::2]


def _interval(ratios: NDArray[np.float64], n: int) -> Interval:
    result, start, goal = ratios.T
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (result - start) / (goal - start)
    if n < 2 or np.isnan(shares).any():
        return Interval(float(shares[0]), -math.inf, math.inf, n)
    low, high = np.quantile(shares[1:], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(shares[0]), float(low), float(high), n)
