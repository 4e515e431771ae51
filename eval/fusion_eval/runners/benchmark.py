"""Several models on one suite, and how the last one, the fused model, compares with the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from fusion.models.loading import ModelRef, check_model_folder, model_fingerprint
from fusion.runtime.artifacts import write_json
from fusion_eval.results import Result
from fusion_eval.runners import Progress
from fusion_eval.runners.contamination import NGRAM, DomainOverlap, check_files, find_overlaps, read_texts
from fusion_eval.runners.evaluate import BenchmarkSettings, evaluate
from fusion_eval.statistics.gap import Gap, gap_closed
from fusion_eval.statistics.guard import Regression, regressions
from fusion_eval.suites.suite import Suite

ModelProgress = Callable[[str], AbstractContextManager[Callable[[int], Progress]]]
"""Given a model's name, a context in which a bar can be started with the number of requests."""


@dataclass(frozen=True)
class Comparisons:
    """What the last model is compared with, once all models are evaluated."""

    guard: Sequence[str] = ()
    """Names of models than which the last one must not be worse."""
    baseline: str | None = None
    """Name of the plainly fine-tuned model, from which the gap is counted; None leaves the gap out."""
    fusion_data: Sequence[Path] = ()
    """JSON lines the models were fused on, searched for test questions."""
    ngram: int = NGRAM
    """Words in a row that count as found there."""


@dataclass(frozen=True)
class BenchmarkOutcome:
    """Results of all models on a suite, and what the comparisons found."""

    results: list[Result]
    """In the order of the models: the pivot first, the fused model last."""
    gaps: list[Gap] | None
    """None where no baseline was named; empty where there is no source between the first and the last model."""
    overlaps: list[DomainOverlap] | None
    """Test questions found in the fusion data; None where no data were named."""
    regressions: list[Regression]
    """Tasks on which the last model is worse than one it is guarded by."""


def parse_models(models: Sequence[str]) -> dict[str, ModelRef]:
    """Models by name: what stands before `=`, else the last part of the path. Raises ValueError for one name twice."""
    refs: dict[str, ModelRef] = {}
    for model in models:
        match = None if Path(model).exists() else re.fullmatch(r"([\w.-]+)=(.+)", model)
        name, path = match.groups() if match else (_name(model), model)
        if name in refs:
            raise ValueError(f"Two models are called {name}; give one another name: other={path}.")
        refs[name] = ModelRef(path)
    return refs


def check_comparisons(models: Mapping[str, ModelRef], comparisons: Comparisons) -> None:
    """Raise ValueError or FileNotFoundError for a compared name that no model has, and for what is no model or not there."""
    *others, last = models
    baselines = [comparisons.baseline] if comparisons.baseline else []
    for option, names in [("--guard", comparisons.guard), ("--baseline", baselines)]:
        if unknown := [name for name in names if name not in others]:
            raise ValueError(
                f"{option} {','.join(unknown)}: no such model to compare {last} with; there are "
                f"{', '.join(others) or 'none'}. Name a model with name=path."
            )
    for ref in models.values():
        check_model_folder(ref)
        if ref.local_path is None:
            model_fingerprint(ref)  # raises where the hub does not have it, before the first model is evaluated
    check_files(comparisons.fusion_data)


def benchmark(
    models: Mapping[str, ModelRef], suite: Suite, settings: BenchmarkSettings, comparisons: Comparisons, *, out: Path,
    progress: ModelProgress,
) -> BenchmarkOutcome:  # fmt: skip
    """Evaluate all models, the pivot first and the fused model last, and compare the last one with the others.

    Results are written below `out`, and what was found in the fusion data to `out`/contamination-<suite>.json.

    Raises what `check_comparisons` and `evaluate` raise.
    """
    check_comparisons(models, comparisons)
    results = []
    for name, ref in models.items():
        with progress(name) as start:
            results.append(evaluate(ref, suite, settings, name=name, out=out, progress=start))
    guards = [result for name in comparisons.guard for result in results[:-1] if result.model == name]
    return BenchmarkOutcome(
        results, _gaps(results, comparisons), _overlaps(results[-1], comparisons, out), regressions(results[-1], guards)
    )


def _name(model: str) -> str:
    return Path(model).stem if model.endswith(".gguf") else Path(model).name


def _gaps(results: Sequence[Result], comparisons: Comparisons) -> list[Gap] | None:
    if comparisons.baseline is None:
        return None
    baseline = next(result for result in results if result.model == comparisons.baseline)
    sources = [result for result in results[1:-1] if result.model != comparisons.baseline]
    return gap_closed(results[-1], baseline, sources) if sources else []


def _overlaps(result: Result, comparisons: Comparisons, out: Path) -> list[DomainOverlap] | None:
    if not comparisons.fusion_data:
        return None
    overlaps = find_overlaps(result.samples, read_texts(comparisons.fusion_data), comparisons.ngram)
    write_json(out / f"contamination-{result.suite}.json", [asdict(overlap) for overlap in overlaps])
    return overlaps
