"""Tasks on which a model is significantly worse than another: for runs that must not lose what a model could do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.comparison import compare
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import METRICS


@dataclass(frozen=True)
class Regression:
    """One task on which a model is worse than another beyond the interval."""

    model: str
    baseline: str
    domain: str
    metric: str
    difference: Interval
    """Model minus baseline, paired; excludes 0 on the bad side."""

    def __str__(self) -> str:
        metric, difference = METRICS[self.metric], self.difference
        low, high = metric.show_signed(difference.low), metric.show_signed(difference.high)
        return (
            f"{self.domain}: {self.model} is worse than {self.baseline} by {metric.show(abs(difference.value))} "
            f"{metric.label} (95% interval of the difference {low} to {high}, n = {difference.n})"
        )


def regressions(
    result: Result, baselines: Sequence[Result], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[Regression]:
    """Every domain and metric in which `result` is worse than one of `baselines`: the paired 95% interval excludes 0.

    One interval a task is not corrected for their number: of forty tasks that did not change, one may be named. Raises
    ValueError where two were measured on different samples.
    """
    return [
        Regression(result.model, baseline.model, domain, metric, difference)
        for baseline in baselines
        for domain, metrics in compare(result, baseline, seed=seed, resamples=resamples).items()
        for metric, difference in metrics.items()
        if domain != MEAN and difference.excludes(0) and not METRICS[metric].better(difference.value)
    ]
