"""Run configurations one after another or several at once, and say how far they are.

What runs do is told by themselves: in this process through a callback, in others through a queue that a thread here follows.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.queues import SimpleQueue

import torch

from fusion import pipeline
from fusion.config import Config, loading
from fusion.runtime.console import console, quiet, show, silence
from fusion.runtime.progress_lines import ProgressLines, time_in_words
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS

NamedRun = tuple[str, Config]
"""A label for the progress line, and the configuration of the run."""
Note = tuple[str, str]
"""Label of a run and what it does now; "" when it is done."""


def measure(config: Config, listener: Callable[[str], None] = lambda _: None) -> Result:
    """Result of the fused model of a run on its held-out data; the run is made first, if it is not there.

    Nothing is printed: `listener` is told how far it is.
    """
    result, used = config.folder / "eval" / config.fused / "heldout.json", config.folder / "config.yaml"
    done = result.exists() and used.exists() and used.read_text() == loading.dump(config)
    if not done:
        with silence(listener):
            pipeline.run(config, until="evaluate")
    return Result.load(result)


@dataclass
class RunExecutor:
    """Measures runs, `jobs` at a time, and prints a line for each: its result. `lines` says how long the rest will take."""

    lines: ProgressLines
    jobs: int = 1

    def measure(self, named_runs: Sequence[NamedRun]) -> list[Result]:
        """Make and measure the runs, several at a time, and return their results in the order of the runs."""
        if self.jobs == 1:
            return [self._report_progress(label, *_timed(config, self.note_of(label))) for label, config in named_runs]
        found: dict[int, Result] = {}
        spawn = multiprocessing.get_context("spawn")
        with (
            self._followed_notes(spawn) as notes,
            ProcessPoolExecutor(self.jobs, spawn, initializer=_begin_worker, initargs=(self.jobs, notes)) as pool,
        ):
            waiting = {pool.submit(_timed_in_worker, *run): number for number, run in enumerate(named_runs)}
            for future in as_completed(waiting):
                found[waiting[future]] = self._report_progress(named_runs[waiting[future]][0], *future.result())
        return [found[number] for number in range(len(named_runs))]

    def note_of(self, label: str) -> Callable[[str], None]:
        """What is told how far a run is, and puts it behind the progress line."""
        self.lines.note = f"now {label}"
        return lambda what: setattr(self.lines, "note", f"now {label}: {what}")

    @contextmanager
    def _followed_notes(self, spawn: SpawnContext) -> Iterator[SimpleQueue[Note | None]]:
        """A queue for `Note`s of other processes, which a thread puts behind the progress line."""
        notes: SimpleQueue[Note | None] = spawn.SimpleQueue()
        thread = threading.Thread(target=self._follow, args=(notes,), daemon=True)
        thread.start()
        try:
            yield notes
        finally:
            notes.put(None)
            thread.join()

    def _follow(self, notes: SimpleQueue[Note | None]) -> None:
        doing: dict[str, str] = {}
        for label, what in iter(notes.get, None):
            doing[label] = what
            now = [f"{each}: {words}" for each, words in doing.items() if words]
            self.lines.note = f"now {'; '.join(now)}" if now else ""

    def _report_progress(self, label: str, result: Result, seconds: float) -> Result:
        self.lines.advance(1)
        took = time_in_words(seconds)
        show([f"  {self.lines.done}/{self.lines.total}  {label}: {_numbers(result)}  ({took})"])
        return result


class _Worker:
    """What a worker process has: the queue for its notes."""

    notes: SimpleQueue[Note | None]


def _begin_worker(jobs: int, notes: SimpleQueue[Note | None]) -> None:
    """Set up a worker process: no output, and its share of the cores."""
    _Worker.notes = notes
    quiet()
    console.quiet = True
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _timed_in_worker(label: str, config: Config) -> tuple[Result, float]:
    def tell(what: str) -> None:
        _Worker.notes.put((label, what))

    tell("begins")
    try:
        return _timed(config, tell)
    finally:
        tell("")


def _timed(config: Config, listener: Callable[[str], None]) -> tuple[Result, float]:
    start = time.perf_counter()
    return measure(config, listener), time.perf_counter() - start


def _numbers(result: Result) -> str:
    mean = summarise(result, resamples=2)[MEAN]
    return ", ".join(f"{METRICS[name].label} {METRICS[name].show(found.value)}" for name, found in mean.items())
