"""The evaluation of one model after another on a suite of benchmarks; needs lm-eval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.models.loading import ModelRef
from fusion_eval.results import Result
from fusion_eval.runners import Progress
from fusion_eval.runners.evaluate import BenchmarkSettings, doc_limit, evaluate
from fusion_eval.suites.suite import Suite


@dataclass(frozen=True)
class SuiteEvaluation:
    """A suite, and how it is put to a model; what `fusion benchmark` does for one."""

    suite: Suite
    settings: BenchmarkSettings

    @property
    def name(self) -> str:
        """The suite's."""
        return self.suite.name

    def evaluate(
        self, name: str, identity: str, load: Callable[[], Any], *, out: Path, progress: Callable[[int], Progress]
    ) -> Result:
        """Return the result of a model; answers that it gave before are read from `out`. See `evaluate` for errors."""
        with load() as ref:
            result = evaluate(ref, self.suite, self.settings, name=identity, out=out, progress=progress)
        return result.model_copy(update={"model": name})

    def describe(self, refs: Sequence[ModelRef]) -> str:
        """Which tasks, with how many questions; `refs` are not read."""
        counts = [f"{task} {doc_limit(self.suite, self.settings, task) or 'all'}" for task in self.suite.tasks]
        return f"{self.suite.name}, questions of each task: {', '.join(counts)}"
