"""Where a model stands worst against others on the same examples: one other, or the best of several in each domain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES
from fusion_eval.statistics.comparison import Scores, compare, summarise
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import METRICS


@dataclass(frozen=True)
class PairedDifference:
    """A metric of one model less that of another in one domain, or in the mean over domains."""

    domain: str
    metric: str
    other: str
    """The model compared with."""
    difference: Interval
    """Paired over the same examples."""

    @property
    def lost(self) -> float:
        """How much worse the model is; negative where it is better."""
        value = self.difference.value
        return value if METRICS[self.metric].lower_is_better else -value

    @property
    def mark(self) -> str:
        """★ where the model is better and ▼ where it is worse, by an interval that excludes 0; else nothing."""
        return ("▼" if self.lost > 0 else "★") if self.difference.excludes(0) else ""


def differences_to_best(
    result: Result, others: Sequence[Result], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[PairedDifference]:
    """The model less the best of `others`, for every metric in every domain and in the mean.

    The best is chosen in each domain on the same examples, which favours it a little, and the more others the more; in the mean
    it is the one model that has the best mean. Raises ValueError where models were measured on different samples.
    """
    scores = {other.model: summarise(other, seed=seed, resamples=resamples) for other in others}
    differences = {other.model: compare(result, other, seed=seed, resamples=resamples) for other in others}
    found = []
    for domain, metric in _domains_and_metrics(differences.values()):
        values = {name: each[domain][metric].value for name, each in scores.items()}
        best = (min if METRICS[metric].lower_is_better else max)(values, key=values.__getitem__)
        found.append(PairedDifference(domain, metric, best, differences[best][domain][metric]))
    return found


def worst_of(differences: Sequence[PairedDifference], metric: str) -> PairedDifference | None:
    """The domain in which a model has lost most, or gained least; None where no domain has the metric."""
    of_domains = [each for each in differences if each.metric == metric and each.domain != MEAN]
    return max(of_domains, key=lambda each: each.lost, default=None)


def mean_of(differences: Sequence[PairedDifference], metric: str) -> PairedDifference | None:
    """The difference in the mean over domains; None where no domain has the metric."""
    return next((each for each in differences if each.metric == metric and each.domain == MEAN), None)


def _domains_and_metrics(scores: Iterable[Scores]) -> list[tuple[str, str]]:
    first, *others = scores
    return [(d, m) for d, metrics in first.items() for m in metrics if all(m in each.get(d, {}) for each in others)]
