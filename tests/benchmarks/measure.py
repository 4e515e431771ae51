"""How things are measured: two ways in turn, many times, and the median of their ratios with the quartiles."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One line of a table."""

    what: str
    value: str
    target: str = ""
    how: str = ""


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of a/b over paired runs, and the median seconds of each."""

    value: float
    low: float
    high: float
    a: float
    b: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def paired(
    a: Callable[[], object], b: Callable[[], object], runs: int = 7, clock: Callable[[], float] = time.process_time
) -> Ratio:
    """Time of `a` over time of `b`, A B B A A B ..., after one warm-up of each. CPU seconds unless `clock` says otherwise."""
    a(), b()
    times: list[tuple[float, float]] = []
    for run in range(runs):
        first, second = (a, b) if run % 2 == 0 else (b, a)
        one, other = seconds(first, clock), seconds(second, clock)
        times.append((one, other) if run % 2 == 0 else (other, one))
    ratios = sorted(one / other for one, other in times)
    low, _, high = statistics.quantiles(ratios, n=4) if runs > 1 else [ratios[0]] * 3
    medians = [statistics.median(side) for side in zip(*times, strict=True)]
    return Ratio(statistics.median(ratios), low, high, *medians)


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """What one call takes."""
    start = clock()
    work()
    return clock() - start


def best(work: Callable[[], object], runs: int = 5) -> float:
    """CPU seconds of the quickest of several calls, after one warm-up."""
    work()
    return min(seconds(work) for _ in range(runs))


def put_on_page(page: Path, name: str, text: str) -> None:
    """Put `text` between the page's marks for this benchmark."""
    marks = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    before = page.read_text()
    if not marks.search(before):
        raise SystemExit(f"{page} has no place for {name}: put the lines <!-- {name} --> and <!-- end --> into it.")
    page.write_text(marks.sub(lambda found: found[1] + text + found[2], before))
