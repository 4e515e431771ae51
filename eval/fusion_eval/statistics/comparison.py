"""What may be said of results: each number with the interval it could have had on other examples of the same kind.

All intervals are 95% percentile-bootstrap intervals over examples (Efron & Tibshirani 1993, chapter 13). Of one training
they cover the choice of examples, not the luck of the training: another seed may land outside. Of several trainings, one a
seed, each draw takes seeds and examples with replacement, and the interval covers both; with three seeds it is still too
narrow, for three values vary less among themselves than the trainings they stand for. With few examples (say, under 30)
intervals are too narrow, and where all examples agree their width is zero; so every interval carries its n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusion_eval.results import MEAN, Item, Result
from fusion_eval.statistics.bootstrap import RESAMPLES, Interval, mean_of, sample
from fusion_eval.statistics.metrics import (
    METRICS,
    by_domain,
    check_same,
    columns_of,
    columns_of_both,
    knows,
    paired_columns,
)

Scores = dict[str, dict[str, "Interval"]]
"""Domain (or `mean`) -> metric -> interval."""

Runs = Result | Sequence[Result]
"""What one model did; or what several did that were made alike but for the seed, whose mean counts."""


def mean(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean of `values`, one per example. Raises ValueError for an empty list or a value that is not finite."""
    values = np.asarray(values, dtype=np.float64)
    return ratio(values, np.ones_like(values), seed=seed, resamples=resamples)


def ratio(numerators: ArrayLike, denominators: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Sum of numerators over sum of denominators, an entry of each per example; examples are drawn, with both entries.

    So long examples count more, as they should in bits per byte. Raises ValueError when a denominator is not above 0.
    """
    columns = np.stack([np.asarray(numerators, float), np.asarray(denominators, float)])[None]
    return sample(columns, seed, resamples).interval()


def paired(a: Sequence[Item], b: Sequence[Item], metric: str, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Metric of `a` minus metric of `b`, two models on the same items: each draw takes an item with both its outcomes.

    Much narrower than two separate intervals, for what makes an item hard makes it hard for both. Items are joined by
    id. Raises ValueError when one side has items the other lacks, or when an id stands for two different texts.
    """
    return sample(paired_columns(a, b, metric), seed, resamples).interval()


def summarise(result: Runs, *, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
    """Every metric in every domain, and their unweighted mean over domains; a metric no item knows is left out.

    The mean draws examples within each domain (stratified), so a domain's share does not depend on its size. The
    numbers depend on the items and the seed, not on the order of the items nor on which other domains there are.
    Raises ValueError for several results on different items.
    """
    results = _runs(result)
    for other in results[1:]:
        _check_alike(other, results[0])
    domains = [by_domain(result.items) for result in results]
    known = [(d, m) for d, items in domains[0].items() for m in METRICS if knows(items, m)]
    return _scores({(d, m): stacked([columns_of(run[d], m) for run in domains]) for d, m in known}, seed, resamples)


def compare(result: Runs, baseline: Runs, *, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
    """`result` minus `baseline`, paired, in the shape of `summarise`; a metric only one of them has is left out.

    Several results are paired in their order, so that those of one seed belong together; one result meets each of several.
    Raises ValueError when the two were measured on different suites or items, or are several but not equally many.
    """
    pairs = [columns_of_both(*_check_alike(a, b)) for a, b in side_by_side(result, baseline)]
    return _scores({key: stacked([pair[key] for pair in pairs]) for key in pairs[0]}, seed, resamples)


def _runs(result: Runs) -> list[Result]:
    return [result] if isinstance(result, Result) else list(result)


def side_by_side(result: Runs, baseline: Runs) -> list[tuple[Result, Result]]:
    """Runs that belong together, in their order; a single one belongs to each of several. Raises ValueError for 2 and 3."""
    ours, theirs = _runs(result), _runs(baseline)
    if len(ours) != len(theirs) and 1 not in (len(ours), len(theirs)):
        raise ValueError(
            f"{ours[0].model} has {len(ours)} runs, {theirs[0].model} has {len(theirs)}; measure both on the same seeds."
        )
    n = max(len(ours), len(theirs))
    return list(zip(ours * (n // len(ours)), theirs * (n // len(theirs)), strict=True))


def stacked(columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Columns of several runs as one array; of one run, its own."""
    return columns[0] if len(columns) == 1 else np.stack(columns)


def _check_alike(result: Result, other: Result) -> tuple[list[Item], list[Item]]:
    """Items of both. Raises ValueError where the two were not measured on the same."""
    if result.suite != other.suite:
        raise ValueError(
            f"{result.model} was evaluated on {result.suite}, {other.model} on {other.suite}: nothing to "
            "compare. Evaluate both on the same suite."
        )
    try:
        check_same(result.items, other.items)
    except ValueError as error:
        raise ValueError(f"{result.model} against {other.model} on {result.suite}: {error}") from error
    return result.items, other.items


def by_subset(result: Result) -> dict[str, Result]:
    """For each domain that has subsets, such as the 57 of MMLU, a result whose domains are these, all weights 1."""
    items = [item for item in result.items if item.subset is not None]
    parts = by_domain(items)
    return {
        domain: result.model_copy(
            update={"suite": f"{result.suite}: {domain}", "items": [_of_subset(i) for i in found]}
        )
        for domain, found in parts.items()
    }


def _of_subset(item: Item) -> Item:
    return item.model_copy(update={"domain": item.subset, "weight": 1.0})


def _scores(columns: Mapping[tuple[str, str], NDArray[np.float64]], seed: int, resamples: int) -> Scores:
    scores: Scores = {}
    for metric in METRICS:
        # a stream of random numbers for each domain: were it shared, the draws of all domains would go together
        found = {d: sample(values, seed, resamples, stream=d) for (d, m), values in columns.items() if m == metric}
        if found:
            found[MEAN] = mean_of(list(found.values()))
        for domain, drawn in found.items():
            scores.setdefault(domain, {})[metric] = drawn.interval()
    if MEAN in scores:
        scores[MEAN] = scores.pop(MEAN)  # last, also where a later metric brought a later domain
    return scores
