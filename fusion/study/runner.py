"""Run a study: tune each arm, measure it from every seed, write the results.

    tune       each arm chooses among its settings, on data that no result is measured on
    measure    each arm from every seed, on the held-out data; the pivot and the sources once
    write      table, figure, results.json and results.md in the study's folder, of what is there so far

All arms are measured from the first seed before any is from the second, so that a study that is stopped has something to show.
Every run is an ordinary one in runs/<study>/<arm>/, and may be looked at, reported and resumed like any other. What is done is
not done again; what runs have in common is made once (runs/<study>/store).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rich.console import Console

from fusion.config import Config
from fusion.runtime.console import console
from fusion.runtime.locks import exclusive
from fusion.runtime.progress_lines import ProgressLines
from fusion.stages.context import RunContext
from fusion.study.executor import RunExecutor, Task
from fusion.study.grid import Setting, StudyGrid
from fusion.study.results import StudyResults
from fusion.study.results_page import show_results, write_results
from fusion.study.tuning import TriedSettings, words
from fusion_eval.results import Result


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
    # a console of its own, which is not silent while a run is
    with ProgressLines(grid.study.name, total, "runs", console=Console()) as lines:
        progress = _Progress(grid, RunExecutor(lines, jobs))
        progress.run_all()
        lines.note = ""
    results = progress.results(len(grid.study.seeds))
    write_results(results, grid.folder)
    show_results(results, grid.folder)
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


class _Progress:
    """What a study has found so far; each result decides what runs next.

    Raises ValueError where the metric that is to decide was not measured.
    """

    def __init__(self, grid: StudyGrid, executor: RunExecutor) -> None:
        self._grid, self._executor, self._tuning = grid, executor, grid.study.tuning
        # the baseline first: the others are compared with it
        self._arms = sorted(grid.study.arms, key=lambda arm: arm != grid.study.baseline)
        self._tried: dict[str, TriedSettings] = {}
        self._chosen: dict[str, Setting] = {}
        self._by_arm: dict[str, dict[int, Result]] = {arm: {} for arm in grid.study.arms}
        self._original: list[Result] = []
        self._written: tuple[int, list[str]] = 0, []
        """Seeds and arms of the results that were written last; of what an earlier call found, that call wrote."""

    def run_all(self) -> None:
        """Make every trial and every run, or read its result where it is there."""
        # first, since it fills the caches that most arms share
        self._submit((-1,), "pivot and sources", self._grid.original_models(), self._add_original, shown="pivot")
        for place, arm in enumerate(self._arms):
            if self._tuning is None:
                self._choose(arm, {})
            else:
                self._try_settings(arm, place)
        self._executor.drain()

    def results(self, seeds: int) -> StudyResults:
        """Results of the arms that have been measured from the first `seeds` seeds."""
        complete = self._measured_from(seeds)
        return StudyResults(
            self._grid.study.baseline,
            {arm: self._chosen[arm] for arm in complete},
            {arm: [self._by_arm[arm][seed] for seed in self._grid.study.seeds[:seeds]] for arm in complete},
            self._original,
            {arm: self._tried[arm] for arm in complete if arm in self._tried},
        )

    def _measured_from(self, seeds: int) -> list[str]:
        first = set(self._grid.study.seeds[:seeds])
        return [arm for arm, found in self._by_arm.items() if found.keys() >= first]

    def _submit(
        self,
        order: tuple[int, ...],
        label: str,
        config: Config,
        then: Callable[[Result], None],
        *,
        shown: str | None = None,
    ) -> None:
        self._executor.submit(Task(order, label, config, then, shown))

    def _try_settings(self, arm: str, place: int) -> None:
        assert self._tuning is not None
        settings, seeds = self._grid.settings(arm), self._tuning.seeds
        self._tried[arm] = TriedSettings(settings, self._tuning.metric, len(seeds))
        for number, setting in enumerate(settings):
            for seed in seeds:
                order = (0, place, 0, number, seed)
                label = f"{arm}, {words(setting)}"
                self._submit(order, label, self._grid.trial(arm, setting, seed), partial(self._add_trial, arm, number))

    def _add_trial(self, arm: str, number: int, result: Result) -> None:
        tried = self._tried[arm]
        tried.add(number, result)
        if tried.complete:
            self._choose(arm, tried.settings[tried.best()])

    def _choose(self, arm: str, setting: Setting) -> None:
        self._chosen[arm] = setting
        for turn, seed in enumerate(self._grid.study.seeds):
            order, label = (turn, self._arms.index(arm), 1), f"{arm}, seed {seed}"
            self._submit(order, label, self._grid.run(arm, setting, seed), partial(self._add_result, arm, seed))

    def _add_result(self, arm: str, seed: int, result: Result) -> None:
        self._by_arm[arm][seed] = result
        self._write()

    def _add_original(self, _: Result) -> None:
        """Take the results of the pivot and of every source that can be run, before any training."""
        config = self._grid.original_models()
        files = [
            config.folder / "eval" / name / "heldout.json" for name in ("pivot", *(s.name for s in config.sources))
        ]
        self._original = [Result.load(file) for file in files if file.exists()]
        self._write()

    def _write(self) -> None:
        """Write what there is: after each arm's first seed, then whenever all arms have one seed more."""
        every, arms = self._grid.study.seeds, self._by_arm
        seeds = max([n for n in range(1, len(every) + 1) if len(self._measured_from(n)) == len(arms)], default=1)
        measured = self._measured_from(seeds)
        if self._executor.made == 0 or not self._original or self._grid.study.baseline not in measured:
            return
        if (len(measured), seeds) != (len(arms), len(every)) and (seeds, measured) != self._written:
            self._written = seeds, measured
            so_far = f"So far: {len(measured)} of {len(arms)} arms, {seeds} of {len(every)} seeds."
            write_results(self.results(seeds), self._grid.folder, so_far)
