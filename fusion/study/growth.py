"""A figure of arms that differ in a number, such as how many examples they learn from: `answers_100`, `answers_300`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusion.report.figures.drawing import BLUE, GREY, ORANGE, OTHERS, STYLE, WIDTH
from fusion.study.results import ArmResult, StudyResults
from fusion_eval.results import MEAN
from fusion_eval.statistics.metrics import METRICS

NUMBERED = re.compile(r"(.+)_(\d+)")
COLOURS = (GREY, BLUE, ORANGE, *OTHERS)


def numbered_arms(arms: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return by method, then by number, the names of arms `METHOD_NUMBER`; nothing where some are no such, or all alone."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for arm in arms:
        if (parts := NUMBERED.fullmatch(arm)) is None:
            return {}
        found[parts[1]][int(parts[2])] = arm
    return dict(found) if any(len(of) > 1 for of in found.values()) else {}


@rc_context(STYLE)
def growth(results: StudyResults, metric: str) -> Figure:
    """A panel for each domain: a line for each method over the number, with intervals; the pivot and the best source dashed.

    For results whose arms are `numbered_arms`.
    """
    domains = [domain for domain in results.domains if results.rows(metric, domain)]
    domains = [domain for domain in domains if domain != MEAN or len(domains) > 2]
    columns = min(3, len(domains))
    lines = -(-len(domains) // columns)
    figure = Figure(figsize=(WIDTH, 2.6 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for axes, domain in zip(panels, domains, strict=False):
        _panel(axes, results, metric, domain)
    for axes in list(panels)[len(domains) :]:
        axes.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _panel(axes: Axes, results: StudyResults, metric: str, domain: str) -> None:
    rows = {row.name: row for row in results.rows(metric, domain)}
    for colour, (method, by_number) in zip(COLOURS, numbered_arms(list(results.by_arm)).items(), strict=False):
        _line(axes, metric, {n: rows[arm] for n, arm in sorted(by_number.items()) if arm in rows}, method, colour)
    pivot, *sources = (rows[each.model] for each in results.original_models if each.model in rows)
    sign = 1 if METRICS[metric].lower_is_better else -1
    best = min(sources, key=lambda row: sign * row.value.value, default=None)
    for row, style in ((pivot, ":"), (best, "--")):
        if row is not None:
            label = "pivot, untouched" if row is pivot else "best source"
            axes.axhline(METRICS[metric].scale * row.value.value, color=GREY, lw=1, ls=style, label=label)
    axes.set(xscale="log", title=f"{domain}: {METRICS[metric].label}")
    numbers = sorted({n for of in numbered_arms(list(results.by_arm)).values() for n in of})
    axes.set_xticks(numbers, [f"{n:,}" for n in numbers])
    axes.minorticks_off()


def _line(axes: Axes, metric: str, rows: dict[int, ArmResult], method: str, colour: str) -> None:
    ends = np.array([[row.value.value, row.value.low, row.value.high] for row in rows.values()])
    value, low, high = METRICS[metric].scale * ends.T
    errors = np.array([value - low, high - value]).clip(min=0)
    axes.errorbar(
        list(rows),
        value,
        yerr=errors,
        fmt="o-",
        ms=3.5,
        lw=1.4,
        elinewidth=1,
        color=colour,
        label=method.replace("_", " "),
    )
