"""Progress of long work as lines of text, one a minute, for output that is not a terminal: logs, pipes, clusters."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rich.console import Console

EVERY = 60.0
"""Seconds from one line to the next."""
WINDOW = 10
"""Lines back to which speed is measured, so that it is that of the last ten minutes."""
SETTLED = 1.0
"""Seconds after the start in which what is done was there already, and says nothing of speed."""


class ProgressLines:
    """Prints what is done, what is left and how fast, once a minute and at the end; a context in which the work is done.

        rows of coder: 12,000 of 40,000 tokens, 3,100/s, 9 minutes left

    Lines are printed as work is reported, and inside the context by a thread while none is. `clock` gives seconds, `initial` is
    what was done before. `note` is put in brackets behind a line and may be changed, as may `total`; 0 is one not known yet.
    """

    def __init__(
        self, title: str, total: int, unit: str = "", *, console: Console, initial: int = 0, note: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.title, self.total, self.unit, self.done, self._note = title, total, unit, initial, note
        self._console, self._clock = console, clock
        self._start = self._printed = self._moved = self._noted = clock()
        self._snapshots = deque([(self._start, initial)], maxlen=WINDOW)
        self._lock, self._stop = threading.Lock(), threading.Event()

    @property
    def note(self) -> str:
        """What is said in brackets: one that changes shows that something is being done."""
        return self._note

    @note.setter
    def note(self, note: str) -> None:
        self._noted = self._noted if note == self._note else self._clock()
        self._note = note

    def __enter__(self) -> ProgressLines:
        self._thread = threading.Thread(target=self._print_regularly, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.close(stopped=kind is not None)

    def close(self, *, stopped: bool = False) -> None:
        """Print the last line; `stopped` where the work was not finished. Leaving the context does so."""
        took = time_in_words(self._clock() - self._start)
        self._print(f"stopped after {took}" if stopped else f"in {took}")

    def advance(self, units: int, total: int | None = None) -> None:
        """Report that so many more units are done, and a new total where it changed."""
        with self._lock:
            self.done += units
            self._moved = self._clock() if units else self._moved
            self.total = self.total if total is None else total
            if self._clock() - self._start <= SETTLED:
                self._snapshots[0] = self._clock(), self.done
        self.print_if_due()

    def print_if_due(self) -> None:
        """Print a line where the last one is a minute old."""
        with self._lock:
            now = self._clock()
            if now - self._printed < EVERY:
                return
            self._printed = now
            self._print(", ".join(self._speed_and_rest(now)))
            self._snapshots.append((now, self.done))

    def _speed_and_rest(self, now: float) -> list[str]:
        since, before = self._snapshots[0]
        rate = (self.done - before) / (now - since) if now > since else 0.0
        if rate <= 0:
            still = now - max(self._moved, self._noted)
            return [f"nothing done for {time_in_words(still)}"] if still >= EVERY else []
        left = max(0, self.total - self.done) / rate
        return [rate_in_words(rate), *([f"{time_in_words(left)} left"] if self.total else [])]

    def _print(self, rest: str) -> None:
        of = f" of {self.total:,}" if self.total else ""
        unit, note = f" {self.unit}" if self.unit else "", f" ({self.note})" if self.note else ""
        line = f"  {self.title}: {self.done:,}{of}{unit}{', ' if rest else ''}{rest}{note}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _print_regularly(self) -> None:
        while not self._stop.wait(EVERY):
            self.print_if_due()


def time_in_words(seconds: float | int) -> str:
    """Time as people say it: 42 seconds, 9 minutes, 2 h 7 min."""
    if seconds < 90:
        return _counted(round(seconds), "second")
    minutes = round(seconds / 60)
    return _counted(minutes, "minute") if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def rate_in_words(rate: float | int) -> str:
    """Units per second, or per minute or hour where that is less than one, in two digits: 3,100/s, 12/minute."""
    for seconds, name in ((1, "s"), (60, "minute")):
        if rate * seconds >= 1:
            return f"{_two_digits(rate * seconds)}/{name}"
    return f"{_two_digits(rate * 3600)}/hour"


def _two_digits(value: float | int) -> str:
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"
