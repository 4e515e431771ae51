"""All models of an evaluation one after another, and what became of it: where the merged model stands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fusion.merging.evaluation.evaluated_models import BASE, EQUAL, EvaluatedModel
from fusion.models.loading import ModelRef
from fusion_eval.results import Result
from fusion_eval.runners import Progress
from fusion_eval.statistics.metrics import METRICS
from fusion_eval.statistics.worst_domain import PairedDifference, differences_to_best, mean_of, worst_of

MEASURED = ("bits_per_byte", "accuracy", "exact_match")
"""Metrics that are shown; the calibration stays in the files of results."""
WORST_DOMAIN_HEADS = ("metric", "merged less", "mean", "worst domain", "there")
WORST_DOMAIN_CAPTION = (
    "Paired over the same examples; ★ the merged model is better, ▼ worse: the 95% interval excludes 0. The best input (in "
    "brackets) is chosen in each column on the examples it is measured on, which favours it a little."
)
ModelProgress = Callable[[str], AbstractContextManager[Callable[[int], Progress]]]
"""Given a title, a context in which a bar can be started with the number of requests."""


@runtime_checkable
class ModelEvaluation(Protocol):
    """Held-out examples or a suite of benchmarks, as they are put to each model."""

    @property
    def name(self) -> str:
        """Name of the suite in results."""
        ...

    def evaluate(
        self, name: str, identity: str, load: Callable[[], Any], *, out: Path, progress: Callable[[int], Progress]
    ) -> Result:
        """Return the result of one model."""
        ...

    def describe(self, refs: Sequence[ModelRef]) -> str:
        """What is put to each model, for people. Raises ValueError where one of `refs` cannot read it."""
        ...


@dataclass(frozen=True)
class MergeEvaluation:
    """The results of all models on one suite, the merged one last."""

    models: list[EvaluatedModel]
    results: list[Result]
    """One for each model, in their order."""

    @property
    def merged(self) -> Result:
        """That of the merged model."""
        return self.results[-1]

    @property
    def baseline(self) -> str | None:
        """The model that marks in tables compare with: the base, where there is one."""
        return BASE if any(model.role == "base" for model in self.models) else None

    @functools.cached_property
    def comparisons(self) -> dict[str, list[PairedDifference]]:
        """The merged model against the base, the best input of each domain, and the merge with equal weights."""
        roles = {
            "the base": [BASE],
            "the best input": [model.name for model in self.models if model.role == "input"],
            EQUAL: [EQUAL],
        }
        found = {title: [each for each in self.results if each.model in names] for title, names in roles.items()}
        return {title: differences_to_best(self.merged, others) for title, others in found.items() if others}

    def worst_domains(self) -> list[list[str]]:
        """Rows under `WORST_DOMAIN_HEADS`: for each metric and comparison the mean, and the domain where the merge is worst."""
        rows = []
        for metric in MEASURED:
            for title, differences in self.comparisons.items():
                mean, worst = mean_of(differences, metric), worst_of(differences, metric)
                if mean is not None and worst is not None:
                    rows.append([METRICS[metric].label, title, _shown(mean), worst.domain, _shown(worst)])
        return rows


def evaluate_models(
    models: Sequence[EvaluatedModel], evaluations: Sequence[ModelEvaluation], out: Path, *, progress: ModelProgress,
    threads: int | None = None,
) -> list[MergeEvaluation]:  # fmt: skip
    """Put every evaluation to every model, one model in memory at a time; results are kept below `out`.

    What was evaluated before, also by a call that was killed, is read from there.
    """
    identities = [model.identity() for model in models]
    results: list[list[Result]] = [[] for _ in evaluations]
    for number, (model, identity) in enumerate(zip(models, identities, strict=True), start=1):
        load = partial(model.loadable, out / f"{identity}-model", threads)
        for found, evaluation in zip(results, evaluations, strict=True):
            with progress(f"{evaluation.name}, {model.name} ({number} of {len(models)})") as start:
                result = evaluation.evaluate(model.name, identity, load, out=out, progress=start)
                found.append(_without_calibration(result))
    return [MergeEvaluation(list(models), found) for found in results]


def _without_calibration(result: Result) -> Result:
    return result.model_copy(update={"samples": [s.model_copy(update={"calibration": None}) for s in result.samples]})


def _shown(found: PairedDifference) -> str:
    """The difference with its interval and mark, and, where there was a choice, the model compared with."""
    metric, interval = METRICS[found.metric], found.difference
    spread = metric.show_spread(interval, signed=True)
    against = "" if found.other in (BASE, EQUAL) else f" ({found.other})"
    return f"{metric.show_signed(interval.value)} {spread}{found.mark}{against}"
