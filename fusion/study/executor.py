"""Run configurations one after another or several at once, and say how far they are.

What runs do is told by themselves: in this process through a callback, in others through a queue that a thread here follows.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import SpawnContext
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from fusion import pipeline
from fusion.config import Config, loading
from fusion.runtime.console import console, quiet, show, silence
from fusion.runtime.progress_lines import ProgressLines, time_in_words
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS

Note = tuple[str, str]
"""Label of a run and what it does now; "" when it is done."""


def measure(config: Config, listener: Callable[[str], None] = lambda _: None) -> Result:
    """Result of the fused model of a run on its held-out data; the run is made first, if it is not there.

    Nothing is printed: `listener` is told how far it is.
    """
    if not is_measured(config):
        with silence(listener):
            pipeline.run(config, until="evaluate")
    return _result(config, config.fused)


def is_measured(config: Config) -> bool:
    """Whether the result of a run is there, made with this very configuration."""
    used = config.folder / "config.yaml"
    return _result_file(config, config.fused).exists() and used.exists() and used.read_text() == loading.dump(config)


def _result(config: Config, model: str) -> Result:
    return Result.load(_result_file(config, model))


def _result_file(config: Config, model: str) -> Path:
    return config.folder / "eval" / model / "heldout.json"


@dataclass(order=True)
class Task:
    """A run that waits, and who is told its result."""

    order: tuple[int, ...]
    """What is smaller begins earlier."""
    label: str = field(compare=False)
    """For the progress line."""
    config: Config = field(compare=False)
    then: Callable[[Result], None] = field(compare=False)
    """Called in this process with the result of the fused model; it may submit further tasks."""
    shown: str | None = field(default=None, compare=False)
    """Another model of the run whose numbers the progress line shows, by its name."""


@dataclass
class RunExecutor:
    """Measures runs, `jobs` at a time, and prints a line for each: its result. `lines` says how long the rest will take."""

    lines: ProgressLines
    jobs: int = 1
    made: int = 0
    """Runs so far whose result was not there before."""
    _waiting: list[Task] = field(default_factory=list)

    def submit(self, task: Task) -> None:
        """Let a run wait for its turn; `drain` makes it."""
        heapq.heappush(self._waiting, task)

    def drain(self) -> None:
        """Make and measure the runs that wait, and those that these bring, until none is left."""
        if self.jobs > 1:
            self._drain_in_processes()
        while self._waiting:
            task = self._next()
            self._finish(task, *_timed(task.config, self.note_of(task.label)))

    def _drain_in_processes(self) -> None:
        running: dict[Future[tuple[Result, float]], Task] = {}
        with self._pool() as pool:
            while self._waiting or running:
                while self._waiting and len(running) < self.jobs:
                    task = self._next()
                    running[pool.submit(_timed_in_worker, task.label, task.config)] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._finish(running.pop(future), *future.result())

    def _next(self) -> Task:
        task = heapq.heappop(self._waiting)
        self.made += not is_measured(task.config)
        return task

    @contextmanager
    def _pool(self) -> Iterator[ProcessPoolExecutor]:
        spawn = multiprocessing.get_context("spawn")
        with (
            self._followed_notes(spawn) as notes,
            ProcessPoolExecutor(self.jobs, spawn, initializer=_begin_worker, initargs=(self.jobs, notes)) as pool,
        ):
            yield pool

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

    def _finish(self, task: Task, result: Result, seconds: float) -> None:
        self.lines.advance(1)
        took = time_in_words(seconds)
        numbers = (
            _numbers(result) if task.shown is None else f"{task.shown} {_numbers(_result(task.config, task.shown))}"
        )
        show([f"  {self.lines.done}/{self.lines.total}  {task.label}: {numbers}  ({took})"])
        task.then(result)


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
