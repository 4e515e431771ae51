"""The story of a study.

    tune       each arm chooses among its settings, on data that no result is measured on
    measure    each arm from every seed, on the held-out data; the pivot and the sources once
    show       table, figure, results.json and results.md in the study's folder

Every run is an ordinary one in runs/<study>/<arm>/, and may be looked at, reported and resumed like any other. What is done is
not done again; caches and trainings that runs have in common are made once (runs/<study>/store).
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from fusion import pipeline
from fusion.config import Config, loading
from fusion.runtime.console import console, quiet
from fusion.stages.context import Job
from fusion.study.grid import Grid, Setting
from fusion.study.outcome import Outcome
from fusion.study.page import show
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS

Cell = tuple[str, Config]
"""A run, and what it is called on the line that says it is done."""


def run(grid: Grid, jobs: int = 1) -> Outcome:
    """Everything, in `jobs` processes; safe to stop and to call again.

    Raises ValueError where settings would be chosen on what is reported.
    """
    total = grid.check()
    refuse_shared_examples(grid)
    console.print(f"[bold]{grid.study.name}[/]: {len(grid.study.arms)} arms, {total} runs, in {grid.folder}")
    runs = Runs(total, jobs)
    chosen = tune(grid, runs)
    before = untouched(grid)  # also fills the caches that most arms share
    seeds, arms = grid.study.seeds, grid.study.arms
    found = runs.measure([(f"{arm}, seed {seed}", grid.run(arm, chosen[arm], seed)) for seed in seeds for arm in arms])
    results = {arm: found[place :: len(arms)] for place, arm in enumerate(arms)}
    outcome = Outcome(grid.study.baseline, chosen, results, before)
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


def tune(grid: Grid, runs: Runs) -> dict[str, Setting]:
    """Of each arm the setting whose trainings do best on the data for choosing; the first of several alike."""
    tuning = grid.study.tuning
    if tuning is None:
        return {arm: {} for arm in grid.study.arms}
    tried = [(arm, setting) for arm in grid.study.arms for setting in grid.settings(arm)]
    trials = [
        (f"{arm}, {_words(setting)}", grid.trial(arm, setting, seed)) for arm, setting in tried for seed in tuning.seeds
    ]
    found, each = runs.measure(trials), len(tuning.seeds)
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


def measure(config: Config) -> Result:
    """What the fused model of a run does on its held-out data; the run is made first, if it is not there."""
    result, made = config.folder / "eval" / config.chosen / "heldout.json", config.folder / "config.yaml"
    done = result.exists() and made.exists() and made.read_text() == loading.dump(config)
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


@dataclass
class Runs:
    """Makes runs, some at a time, with a line for each that is done: what came out, and how long the rest will take."""

    total: int
    jobs: int = 1
    done: int = 0
    made: int = 0
    """How many were not there already."""
    start: float = field(default_factory=time.perf_counter)

    def measure(self, cells: Sequence[Cell]) -> list[Result]:
        """Results in the order of the cells."""
        if self.jobs == 1:
            return [self._told(what, *_timed(config)) for what, config in cells]
        found: dict[int, Result] = {}
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.jobs, mp_context=spawn, initializer=_worker, initargs=(self.jobs,)) as pool:
            waiting = {pool.submit(_timed, config): number for number, (_, config) in enumerate(cells)}
            for future in as_completed(waiting):
                found[waiting[future]] = self._told(cells[waiting[future]][0], *future.result())
        return [found[number] for number in range(len(cells))]

    def _told(self, what: str, result: Result, seconds: float) -> Result:
        self.done += 1
        self.made += seconds > 1
        left = (time.perf_counter() - self.start) / max(1, self.made) * (self.total - self.done)
        console.print(
            f"  {self.done}/{self.total}  {what}: {_numbers(result)}  ({seconds:.0f} s, about {left / 60:.0f} min left)"
        )
        return result


def _timed(config: Config) -> tuple[Result, float]:
    start = time.perf_counter()
    return measure(config), time.perf_counter() - start


def _worker(jobs: int) -> None:
    """What a process of its own needs: silence, and its share of the cores."""
    quiet()
    console.quiet = True
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


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
