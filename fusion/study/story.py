"""The story of a study.

    tune       each arm chooses among its settings, on data that no result is measured on
    measure    each arm from every seed, on the held-out data; the pivot and the sources once
    show       table, figure, results.json and results.md in the study's folder

Every run is an ordinary one in runs/<study>/<arm>/, and may be looked at, reported and resumed like any other. What is done is
not done again; caches and trainings that runs have in common are made once (runs/<study>/store).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fusion import configfile, pipeline
from fusion.config import Config
from fusion.job import Job
from fusion.progress import console
from fusion.study.grid import Grid, Setting
from fusion.study.outcome import Outcome
from fusion.study.page import show
from fusion_eval.metrics import METRICS
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics import summarise

Step = Callable[[str, Config], Result]


def run(grid: Grid) -> Outcome:
    """Everything; safe to stop and to call again. Raises ValueError where settings would be chosen on what is reported."""
    total = grid.check()
    refuse_shared_examples(grid)
    console.print(f"[bold]{grid.study.name}[/]: {len(grid.study.arms)} arms, {total} runs, in {grid.folder}")
    step = counted(total)
    chosen = {arm: tune(grid, arm, step) for arm in grid.study.arms}
    results = {
        arm: [step(f"{arm}, seed {seed}", grid.run(arm, setting, seed)) for seed in grid.study.seeds]
        for arm, setting in chosen.items()
    }
    outcome = Outcome(grid.study.baseline, chosen, results, untouched(grid))
    show(outcome, grid.folder, grid.study.name)
    return outcome


def refuse_shared_examples(grid: Grid) -> None:
    """Raise ValueError where the data for choosing settings and the data for measuring them have an example in common."""
    if grid.study.tuning is None:
        return
    arm = grid.study.baseline
    setting = grid.settings(arm)[0]
    trial, real = (Job(make(arm, setting, 0)).heldout for make in (grid.trial, grid.run))
    if both := {example.id for example in trial} & {example.id for example in real}:
        raise ValueError(
            f"{len(both)} of {len(trial)} examples of tuning.heldout are also in the data that results are measured on. "
            "Take other rows, for example with skip, limit or another split."
        )


def tune(grid: Grid, arm: str, step: Step) -> Setting:
    """The setting of an arm whose trainings do best on the data for choosing; the first of several alike."""
    settings, tuning = grid.settings(arm), grid.study.tuning
    if tuning is None:
        return settings[0]
    metric = METRICS[tuning.metric]
    scores = []
    for setting in settings:
        found = [step(f"{arm}, {_words(setting)}", grid.trial(arm, setting, seed)) for seed in tuning.seeds]
        mean = summarise(found, resamples=2)[MEAN]
        if tuning.metric not in mean:
            raise ValueError(
                f"tuning.metric is {tuning.metric}, which tuning.heldout does not measure; it knows {', '.join(mean)}."
            )
        scores.append(mean[tuning.metric].value)
    return settings[scores.index(min(scores) if metric.lower_is_better else max(scores))]


def measure(config: Config) -> Result:
    """What the fused model of a run does on its held-out data; the run is made first, if it is not there."""
    result, made = config.folder / "eval" / config.chosen / "heldout.json", config.folder / "config.yaml"
    done = result.exists() and made.exists() and made.read_text() == configfile.dump(config)
    if not done:
        with _silence():
            pipeline.run(config, until="evaluate")
    return Result.load(result)


def untouched(grid: Grid) -> list[Result]:
    """The pivot, then every source that can be run, as they were."""
    config = grid.untouched()
    measure(config)
    files = [config.folder / "eval" / name / "heldout.json" for name in ("pivot", *(s.name for s in config.sources))]
    return [Result.load(file) for file in files if file.exists()]


def counted(total: int) -> Step:
    """`measure`, with a line for each run: how many are done, what came out, how long is left."""
    start, made, seen = time.perf_counter(), 0, 0

    def step(what: str, config: Config) -> Result:
        nonlocal made, seen
        before = time.perf_counter()
        result = measure(config)
        spent, seen = time.perf_counter() - before, seen + 1
        made += spent > 1  # what was there already says nothing of what is to come
        left = (time.perf_counter() - start) / made * (total - seen) if made else 0
        console.print(f"  {seen}/{total}  {what}: {_numbers(result)}  ({spent:.0f} s, about {left / 60:.0f} min left)")
        return result

    return step


def _numbers(result: Result) -> str:
    mean = summarise(result, resamples=2)[MEAN]
    return ", ".join(f"{METRICS[name].label} {METRICS[name].show(found.value)}" for name, found in mean.items())


def _words(setting: Setting) -> str:
    return ", ".join(f"{place.rsplit('.', 1)[-1]} {value}" for place, value in setting.items())


@contextmanager
def _silence() -> Iterator[None]:
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
