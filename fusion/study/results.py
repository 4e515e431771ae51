"""Results of a study: the numbers of each arm, how they differ from the baseline's, how much of the gap they close."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from fusion.study.tuning import TriedSettings
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.comparison import Scores, compare, summarise
from fusion_eval.statistics.gap import gap_closed
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import METRICS


@dataclass(frozen=True)
class ArmResult:
    """One arm, or one original model, in one metric and domain."""

    name: str
    value: Interval
    difference: Interval | None
    """From the baseline, paired by seed and example; None for the baseline itself."""
    gap_closed: Interval | None
    """Share of the way from the baseline to the best source of the domain; None where no source is better than the baseline."""

    def better(self, metric: str) -> bool | None:
        """Whether it is better than the baseline, None where the interval of the difference holds 0."""
        if self.difference is None or not self.difference.excludes(0):
            return None
        return METRICS[metric].better(self.difference.value)


@dataclass(frozen=True, eq=False)
class StudyResults:
    """Results of all arms and of the models that they start from, with what is computed of them."""

    baseline: str
    chosen: dict[str, dict[str, Any]]
    """Arm -> the setting that tuning chose for it."""
    by_arm: dict[str, list[Result]]
    """Arm -> results, one for each seed, in the order of the seeds."""
    original_models: list[Result]
    """Results of the models that no arm trains: the pivot first, then the sources."""
    tried: dict[str, TriedSettings] = field(default_factory=dict)
    """Arm -> what it chose among; empty in a study without tuning."""

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that were measured."""
        known = self._scores[self.baseline][MEAN]
        return [metric for metric in METRICS if metric in known]

    @property
    def domains(self) -> list[str]:
        """Names of the domains, `mean` last."""
        return list(self._scores[self.baseline])

    def rows(self, metric: str, domain: str = MEAN) -> list[ArmResult]:
        """One row for each original model and each arm; those without the metric in this domain are left out."""
        return [
            ArmResult(
                name,
                scores[domain][metric],
                self._differences.get(name, {}).get(domain, {}).get(metric),
                self._closed.get(name, {}).get((domain, metric)),
            )
            for name, scores in self._scores.items()
            if metric in scores.get(domain, {})
        ]

    @functools.cached_property
    def _runs(self) -> dict[str, list[Result]]:
        return {result.model: [result] for result in self.original_models} | self.by_arm

    @functools.cached_property
    def _scores(self) -> dict[str, Scores]:
        return {name: summarise(runs) for name, runs in self._runs.items()}

    @functools.cached_property
    def _differences(self) -> dict[str, Scores]:
        start = self.by_arm[self.baseline]
        return {name: compare(runs, start) for name, runs in self._runs.items() if name != self.baseline}

    @functools.cached_property
    def _closed(self) -> dict[str, dict[tuple[str, str], Interval | None]]:
        start, sources = self.by_arm[self.baseline], self.original_models[1:]
        return {
            name: {(gap.domain, gap.metric): gap.closed for gap in gap_closed(runs, start, sources)}
            for name, runs in self.by_arm.items()
            if name != self.baseline and sources
        }
