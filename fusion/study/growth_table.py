"""Tables of arms that differ in a number: a line for each number, a column for each method, compared at the same number."""

from __future__ import annotations

from fusion.core.markdown import plain
from fusion.study.growth import numbered_arms
from fusion.study.results import StudyResults
from fusion_eval.results import MEAN
from fusion_eval.statistics.comparison import Scores, compare, summarise
from fusion_eval.statistics.metrics import METRICS


def growth_tables(results: StudyResults, metric: str) -> str:
    """A table for each domain, the mean last: values, and in brackets less those of the baseline's method at that number.

    For results whose arms are `numbered_arms`.
    """
    methods = numbered_arms(list(results.by_arm))
    first = next(method for method, by_number in methods.items() if results.baseline in by_number.values())
    order = [first, *(method for method in methods if method != first)]
    numbers = sorted({number for by_number in methods.values() for number in by_number})
    scores = {arm: summarise(runs) for arm, runs in results.by_arm.items()}
    differences = {
        arm: compare(results.by_arm[arm], results.by_arm[methods[first][number]])
        for method in order[1:]
        for number, arm in methods[method].items()
        if number in methods[first]
    }
    domains = [domain for domain in results.domains if domain != MEAN or len(results.domains) > 2]
    tables = []
    for domain in domains:
        heads = [first, *(f"{plain(method)} (minus {plain(first)}, 95%)" for method in order[1:])]
        lines = [
            f"| {plain(domain)}: {METRICS[metric].label} | {' | '.join(heads)} |",
            f"| ---: |{' ---: |' * len(heads)}",
        ]
        for number in numbers:
            arms = [methods[method].get(number) for method in order]
            cells = ["–" if arm is None else _cell(scores[arm], differences.get(arm), domain, metric) for arm in arms]
            lines.append(f"| {number:,} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    said = f"In brackets: less {plain(first)} at the same number. ★ better, ▼ worse: the interval excludes 0."
    return "\n\n".join([*tables, said])


def _cell(scores: Scores, differences: Scores | None, domain: str, metric: str) -> str:
    if (value := scores.get(domain, {}).get(metric)) is None:
        return "–"
    shown = METRICS[metric].show(value.value)
    if differences is None:
        return shown
    found = differences[domain][metric]
    mark = "" if not found.excludes(0) else "★" if METRICS[metric].better(found.value) else "▼"
    ends = " to ".join(map(METRICS[metric].show_signed, (found.low, found.high)))
    return f"{shown} ({METRICS[metric].show_signed(found.value)}{mark}, {ends})"
