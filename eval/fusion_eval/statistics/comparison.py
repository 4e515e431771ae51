"""Scores of a model and differences between two, each with a confidence interval.

All intervals are 95% intervals over examples: Wilson's score interval for shares of right answers, which has a width at 0 of
10 too, and the percentile bootstrap (Efron & Tibshirani 1993, chapter 13) for all else. Differences are paired: bootstrapped,
or by Newcombe's method where fewer than ten answers tell two models apart. Of one training they cover the choice of examples,
not the luck of the training: another seed may land outside. Of several trainings, one a seed, a t interval over seeds is added
to that over examples. Bootstrap intervals of few examples (say, under 30) are too narrow; so every interval carries its n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusion_eval.results import MEAN, Result, Sample
from fusion_eval.statistics.bootstrap import RESAMPLES, bootstrap, mean_of_estimates
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import (
    METRICS,
    by_domain,
    check_same_samples,
    has_metric,
    metric_columns,
    paired_columns,
    shared_columns,
)

Scores = dict[str, dict[str, Interval]]
"""Domain (or `mean`) -> metric -> interval."""

Runs = Result | Sequence[Result]
"""The result of a model, or those of several runs that differ in their seed only, of which the mean counts."""


def mean_interval(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, share: bool = False) -> Interval:
    """Mean of `values`, one per example; with `share`, of scores in [0, 1], for which see `bootstrap`.

    Raises ValueError for an empty list or a value that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    return bootstrap(np.stack([values, np.ones_like(values)])[None], seed, resamples, share=share).interval()


def ratio_interval(
    numerators: ArrayLike, denominators: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Sum of numerators over sum of denominators, an entry of each per example; examples are drawn, with both entries.

    So long examples count more, as they should in bits per byte. Raises ValueError when a denominator is not above 0.
    """
    columns = np.stack([np.asarray(numerators, float), np.asarray(denominators, float)])[None]
    return bootstrap(columns, seed, resamples).interval()


def paired_interval(
    a: Sequence[Sample], b: Sequence[Sample], metric: str, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Metric of `a` minus metric of `b`, two models on the same samples: each draw takes a sample of both models.

    Much narrower than two separate intervals, for what makes a sample hard makes it hard for both. Samples are joined by
    id. Raises ValueError when one side has samples the other lacks, or when an id stands for two different texts.
    """
    share = METRICS[metric].is_share
    return bootstrap(paired_columns(a, b, metric), seed, resamples, share=share).interval()


def summarise(result: Runs, *, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
    """Compute each metric in each domain, with its 95% interval, and its unweighted mean over domains (`"mean"`).

    A metric that no sample has is left out.

    The mean draws examples within each domain (stratified), so a domain's share does not depend on its size. The
    numbers depend on the samples and the seed, not on the order of the samples nor on which other domains there are.
    Raises ValueError for several results on different samples.
    """
    results = _runs(result)
    for other in results[1:]:
        _check_comparable(other, results[0])
    domains = [by_domain(result.samples) for result in results]
    known = [(d, m) for d, samples in domains[0].items() for m in METRICS if has_metric(samples, m)]
    return _scores(
        {(d, m): stack_runs([metric_columns(run[d], m) for run in domains]) for d, m in known}, seed, resamples
    )


def compare(result: Runs, baseline: Runs, *, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
    """Compute the scores of `result` minus those of `baseline`, paired by sample, with 95% intervals.

    A metric that only one of them has is left out.
    Several results are paired in their order, so that those of one seed belong together; one result meets each of several.
    Raises ValueError when the two were measured on different suites or samples, when answers to one domain were compared
    with the truth in two ways, or when they are several but not equally many.
    """
    pairs = [shared_columns(*_check_comparable(a, b)) for a, b in pair_runs(result, baseline)]
    return _scores({key: stack_runs([pair[key] for pair in pairs]) for key in pairs[0]}, seed, resamples)


def _runs(result: Runs) -> list[Result]:
    return [result] if isinstance(result, Result) else list(result)


def pair_runs(result: Runs, baseline: Runs) -> list[tuple[Result, Result]]:
    """Pair runs in their order; a single one is paired with each of several. Raises ValueError for, say, 2 and 3 runs."""
    runs, others = _runs(result), _runs(baseline)
    if len(runs) != len(others) and 1 not in (len(runs), len(others)):
        raise ValueError(
            f"{runs[0].model} has {len(runs)} runs, {others[0].model} has {len(others)}; measure both on the same seeds."
        )
    n = max(len(runs), len(others))
    return list(zip(runs * (n // len(runs)), others * (n // len(others)), strict=True))


def stack_runs(columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Stack the columns of several runs in a leading dimension; those of one run stay as they are."""
    return columns[0] if len(columns) == 1 else np.stack(columns)


def _check_comparable(result: Result, other: Result) -> tuple[list[Sample], list[Sample]]:
    """The samples of both. Raises ValueError where the two were not evaluated on the same ones."""
    if result.suite != other.suite:
        raise ValueError(
            f"{result.model} was evaluated on {result.suite}, {other.model} on {other.suite}: nothing to "
            "compare. Evaluate both on the same suite."
        )
    _check_same_grading(result, other)
    try:
        check_same_samples(result.samples, other.samples)
    except ValueError as error:
        raise ValueError(f"{result.model} against {other.model} on {result.suite}: {error}") from error
    return result.samples, other.samples


def _check_same_grading(result: Result, other: Result) -> None:
    """Raise ValueError for a domain whose answers were right by another rule in each, as far as both results say by which."""
    rules, others = _grading(result), _grading(other)
    for domain in sorted(rules.keys() & others.keys()):
        if rules[domain] != others[domain]:
            raise ValueError(
                f"Answers to {domain} were compared by {rules[domain]!r} in {result.model} and by {others[domain]!r} in "
                f"{other.model}, so their exact match says nothing about the models. Evaluate both with the same `compare`."
            )


def _grading(result: Result) -> dict[str, str]:
    """What of an answer was compared, by domain; empty for a result of a release that did not keep it."""
    key = result.provenance.get("key") or {}
    return dict.fromkeys(key.get("exact_match") or (), "text") | (key.get("compare") or {})


def by_subset(result: Result) -> dict[str, Result]:
    """For each domain with subsets, such as the 57 of MMLU, a result that has these as its domains, all weights 1."""
    samples = [sample for sample in result.samples if sample.subset is not None]
    return {domain: _result_by_subset(result, domain, group) for domain, group in by_domain(samples).items()}


def _result_by_subset(result: Result, domain: str, samples: Sequence[Sample]) -> Result:
    return result.model_copy(
        update={"suite": f"{result.suite}: {domain}", "samples": [_subset_as_domain(sample) for sample in samples]}
    )


def _subset_as_domain(sample: Sample) -> Sample:
    return sample.model_copy(update={"domain": sample.subset, "weight": 1.0})


def _scores(columns: Mapping[tuple[str, str], NDArray[np.float64]], seed: int, resamples: int) -> Scores:
    scores: Scores = {}
    for metric in METRICS:
        # a stream of random numbers for each domain: were it shared, the draws of all domains would go together
        share, known = METRICS[metric].is_share, {d: values for (d, m), values in columns.items() if m == metric}
        found = {d: bootstrap(values, seed, resamples, stream=d, share=share) for d, values in known.items()}
        if found:
            found[MEAN] = mean_of_estimates(list(found.values()))
        for domain, estimate in found.items():
            scores.setdefault(domain, {})[metric] = estimate.interval()
    if MEAN in scores:
        scores[MEAN] = scores.pop(MEAN)  # last, also where a later metric brought a later domain
    return scores
