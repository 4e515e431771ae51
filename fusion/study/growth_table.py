"""Tables of arms that differ in a number: a line for each number, a column for each method, compared at the same number."""

from __future__ import annotations

from collections.abc import Mapping

from fusion.core.markdown import plain
from fusion.study.growth import numbered_arms
from fusion.study.results import StudyResults
from fusion_eval.results import MEAN
from fusion_eval.statistics.comparison import Scores, compare
from fusion_eval.statistics.metrics import METRICS


def growth_tables(results: StudyResults) -> str:
    """A table for each metric and domain, the mean last: values, and in brackets less the baseline's method at that number.

    For results whose arms are `numbered_arms`.
    """
    methods = numbered_arms(list(results.by_arm))
    first = next(method for method, by_number in methods.items() if results.baseline in by_number.values())
    order = [first, *(method for method in methods if method != first)]
    differences = {
        arm: compare(results.by_arm[arm], results.by_arm[methods[first][number]])
        for method in order[1:]
        for number, arm in methods[method].items()
        if number in methods[first]
    }
    domains = [domain for domain in results.domains if domain != MEAN or len(results.domains) > 2]
    columns = {method: methods[method] for method in order}
    tables = [_table(results, metric, domain, columns, differences) for metric in results.metrics for domain in domains]
    said = f"In brackets: less {plain(first)} at the same number. ★ better, ▼ worse: the interval excludes 0."
    return "\n\n".join([*tables, said])


def _table(
    results: StudyResults,
    metric: str,
    domain: str,
    columns: Mapping[str, Mapping[int, str]],
    differences: Mapping[str, Scores],
) -> str:
    first, *others = map(plain, columns)
    heads = [first, *(f"{method} (minus {first}, 95%)" for method in others)]
    lines = [
        f"| {plain(domain)}: {METRICS[metric].label} | {' | '.join(heads)} |",
        f"| ---: |{' ---: |' * len(heads)}",
    ]
    values = {row.name: METRICS[metric].show(row.value.value) for row in results.rows(metric, domain)}
    for number in sorted({number for arms in columns.values() for number in arms}):
        arms = [by_number.get(number) for by_number in columns.values()]
        cells = [
            "–" if arm not in values else values[arm] + _difference(differences.get(arm), domain, metric)
            for arm in arms
        ]
        lines.append(f"| {number:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(scores: Scores | None, domain: str, metric: str) -> str:
    """The difference with mark and interval in brackets; nothing for the baseline's method, or where it lacks the number."""
    if scores is None or (found := scores.get(domain, {}).get(metric)) is None:
        return ""
    mark = "" if not found.excludes(0) else "★" if METRICS[metric].better(found.value) else "▼"
    ends = " to ".join(map(METRICS[metric].show_signed, (found.low, found.high)))
    return f" ({METRICS[metric].show_signed(found.value)}{mark}, {ends})"
