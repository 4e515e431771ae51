"""Run a study: tune each arm, measure it from every seed, write the results.

    tune       each arm chooses among its settings, on data that no result is measured on
    measure    each arm from every seed, on the held-out data; the pivot and the sources once
    write      table, figure, results.json and results.md in the study's folder

Every run is an ordinary one in runs/<study>/<arm>/, and may be looked at, reported and resumed like any other. What is done is
not done again; what runs have in common is made once (runs/<study>/store).
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from fusion.runtime.console import console
from fusion.runtime.locks import exclusive
from fusion.runtime.progress_lines import ProgressLines
from fusion.stages.context import RunContext
from fusion.study.executor import RunExecutor, measure
from fusion.study.grid import Setting, StudyGrid
from fusion.study.results import StudyResults
from fusion.study.results_page import write_results
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS


def run(grid: StudyGrid, jobs: int = 1) -> StudyResults:
    """Run the whole study in `jobs` processes; safe to stop and to call again.

    Raises ValueError where settings would be chosen on what is reported, and BlockingIOError, naming the process, where
    another is running a study in its folder.
    """
    total = grid.check()
    refuse_shared_examples(grid)
    with exclusive(grid.folder / ".lock", f"The study in {grid.folder}"):  # no arm's name begins with a dot
        return _run(grid, jobs, total)


def _run(grid: StudyGrid, jobs: int, total: int) -> StudyResults:
    console.print(f"[bold]{grid.study.name}[/]: {len(grid.study.arms)} arms, {total} runs, in {grid.folder}")
    seeds, arms = grid.study.seeds, grid.study.arms
    # a console of its own, which is not silent while a run is
    with ProgressLines(grid.study.name, total, "runs", console=Console()) as lines:
        executor = RunExecutor(lines, jobs)
        chosen = tune(grid, executor)
        original = measure_original_models(grid, executor)  # also fills the caches that most arms share
        found = executor.measure(
            [(f"{arm}, seed {seed}", grid.run(arm, chosen[arm], seed)) for seed in seeds for arm in arms]
        )
        lines.note = ""
    # the runs went round the arms, seed by seed
    by_arm = {arm: found[index :: len(arms)] for index, arm in enumerate(arms)}
    results = StudyResults(grid.study.baseline, chosen, by_arm, original)
    write_results(results, grid.folder, grid.study.name)
    return results


def refuse_shared_examples(grid: StudyGrid) -> None:
    """Raise ValueError where the data for choosing settings and the data for measuring them have an example in common."""
    if grid.study.tuning is None:
        return
    arm = grid.study.baseline
    setting = grid.settings(arm)[0]
    validation, reported = (RunContext(make(arm, setting, 0)).heldout_examples for make in (grid.trial, grid.run))
    if both := {example.id for example in validation} & {example.id for example in reported}:
        raise ValueError(
            f"{len(both)} of {len(validation)} examples of tuning.heldout are also in the data that results are measured on. "
            "Take other rows, for example with skip, limit or another split."
        )


def tune(grid: StudyGrid, executor: RunExecutor) -> dict[str, Setting]:
    """Return for each arm, by its name, the setting whose trainings do best on the validation data; the first of equals."""
    tuning = grid.study.tuning
    if tuning is None:
        return {arm: {} for arm in grid.study.arms}
    tried = [(arm, setting) for arm in grid.study.arms for setting in grid.settings(arm)]
    trials = [
        (f"{arm}, {_words(setting)}", grid.trial(arm, setting, seed)) for arm, setting in tried for seed in tuning.seeds
    ]
    found, each = executor.measure(trials), len(tuning.seeds)
    scores = [_score(found[n * each : (n + 1) * each], tuning.metric) for n in range(len(tried))]
    best: dict[str, tuple[float, Setting]] = {}
    for (arm, setting), score in zip(tried, scores, strict=True):
        if arm not in best or score < best[arm][0]:
            best[arm] = score, setting
    return {arm: setting for arm, (_, setting) in best.items()}


def _score(found: Sequence[Result], name: str) -> float:
    """The mean over domains and runs, such that less is better. Raises ValueError where it was not measured."""
    mean = summarise(found, resamples=2)[MEAN]
    if name not in mean:
        raise ValueError(f"tuning.metric is {name}, which tuning.heldout does not measure; it knows {', '.join(mean)}.")
    return mean[name].value if METRICS[name].lower_is_better else -mean[name].value


def measure_original_models(grid: StudyGrid, executor: RunExecutor) -> list[Result]:
    """Results of the pivot, then of every source that can be run, before any training."""
    config = grid.original_models()
    measure(config, executor.note_of("pivot and sources"))
    files = [config.folder / "eval" / name / "heldout.json" for name in ("pivot", *(s.name for s in config.sources))]
    return [Result.load(file) for file in files if file.exists()]


def _words(setting: Setting) -> str:
    return ", ".join(f"{place.rsplit('.', 1)[-1]} {value}" for place, value in setting.items())
