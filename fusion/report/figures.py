"""Figures of a run, as SVG that takes the text colour of the page around it, and as PNG on white for documents."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusion.report.record import Helping, Log
from fusion_eval.results import Result
from fusion_eval.statistics import METRICS, RESAMPLES, Interval, summarise

# readable on white and on near-black, and told apart with any common colour blindness (after Okabe & Ito 2008)
PALETTE = ("#0b84c4", "#e08a00", "#0a9a73", "#d2609b", "#8a7fd6", "#c95a2e", "#5d8f2f", "#8b8f98")
INK = "#1b1e24"
"""Colour of text and axes; in SVG it becomes `currentColor`."""
Line = tuple[list[int | float], list[int | float]]
"""Steps, and a value at each."""
WIDTH = 8.6
"""Width of a figure in inches; the same for all, so that text has one size on a page."""

STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.titlecolor": INK, "axes.titleweight": "bold", "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.linewidth": 0.8,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": INK, "grid.alpha": 0.14, "grid.linewidth": 0.7,
    "axes.facecolor": "none", "figure.facecolor": "none", "legend.frameon": False, "font.size": 9,
    "xtick.major.size": 0, "ytick.major.size": 0, "svg.fonttype": "none", "svg.hashsalt": "fusion",
    "text.parse_math": False,  # a `$` in the name of a model is a dollar
}  # fmt: skip


@rc_context(STYLE)
def bars(results: Sequence[Result], metric: str, *, resamples: int = RESAMPLES) -> Figure:
    """A group of bars for each domain and one for their mean, a bar for each model, with 95% intervals.

    Raises ValueError where no result knows the metric.
    """
    scores = {result.model: summarise(result, resamples=resamples) for result in results}
    domains = list(dict.fromkeys(d for score in scores.values() for d, found in score.items() if metric in found))
    if not domains:
        raise ValueError(f"No result has {metric}, so there is nothing to draw.")
    figure = Figure(figsize=(max(WIDTH, 0.9 + 0.28 * len(scores) * len(domains)), 3.0), layout="constrained")
    axes = figure.subplots()
    series = {model: [score.get(domain, {}).get(metric) for domain in domains] for model, score in scores.items()}
    _groups(axes, domains, series, METRICS[metric].scale)
    axes.set_title(f"{METRICS[metric].label}, {'lower' if METRICS[metric].lower_is_better else 'higher'} is better")
    figure.legend(loc="outside lower center", ncols=min(len(scores), 5))
    return figure


@rc_context(STYLE)
def curves(logs: Mapping[str, Log], prefix: str = "loss") -> Figure:
    """A panel for each run of the trainer: `prefix` itself (bold) and every `prefix/<part>` over steps.

    Raises ValueError where no log has such a key.
    """
    found = {name: lines for name, log in logs.items() if (lines := _lines(log, prefix))}
    if not found:
        raise ValueError(f"No training log has {prefix!r}, so there is nothing to draw.")
    parts = sorted({key for lines in found.values() for key in lines} - {prefix})
    colours = {key: PALETTE[index % len(PALETTE)] for index, key in enumerate(parts)}
    columns = min(len(found), 3)
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(WIDTH, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(found) :]:
        axes.remove()
    for axes, (name, lines) in zip(panels, found.items(), strict=False):
        _panel(axes, lines, prefix, colours)
        axes.set(title=name, xlabel="step", ylabel=prefix)
    return figure


@rc_context(STYLE)
def helping(rows: Sequence[Helping]) -> Figure:
    """Match rate of each source in each domain, and beside it the weight of each where sources are weighted."""
    if not rows:
        raise ValueError("There is no row on sources, so there is nothing to draw.")
    shown = [("match rate %", "match_rate", 100.0), ("weight", "weight", 1.0)]
    shown = [(title, field, scale) for title, field, scale in shown if any(getattr(r, field) is not None for r in rows)]
    domains, sources = list(dict.fromkeys(r.domain for r in rows)), list(dict.fromkeys(r.source for r in rows))
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    for axes, (title, field, scale) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        values = {(r.source, r.domain): getattr(r, field) for r in rows}
        series = {source: [_exactly(values.get((source, domain))) for domain in domains] for source in sources}
        _groups(axes, domains, series, scale)
        axes.set_title(title)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(sources), 5))
    return figure


def svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an `<svg>` element to stand inside a page: same figure, same text.

    `name` begins every id in it, so that several figures share a page; `alt` is read aloud instead of it.
    """
    drawn, none = io.StringIO(), dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with rc_context(STYLE):
        figure.savefig(drawn, format="svg", transparent=True, metadata=none)
    text = drawn.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def png(figure: Figure) -> bytes:
    """The figure as PNG on white, 160 dots per inch."""
    drawn = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(drawn, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return drawn.getvalue()


def _groups(axes: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Interval | None]], scale: float) -> None:
    """Bars side by side in each group; no bar where there is no value, no whisker where the interval has no end."""
    width = 0.82 / len(series)
    for index, (name, intervals) in enumerate(series.items()):
        at = np.arange(len(groups)) + (index - (len(series) - 1) / 2) * width
        value, low, high = (
            np.array([np.nan if i is None else getattr(i, end) * scale for i in intervals])
            for end in ("value", "low", "high")
        )
        whiskers = np.nan_to_num(np.stack([value - low, high - value]), nan=0.0, posinf=0.0).clip(min=0)
        axes.bar(at, value, width * 0.88, label=name, color=PALETTE[index % len(PALETTE)])
        seen = whiskers.any(0)
        axes.errorbar(at[seen], value[seen], whiskers[:, seen], fmt="none", ecolor=INK, elinewidth=1, alpha=0.75)
    axes.set_xticks(range(len(groups)), list(groups))


def _panel(axes: Axes, lines: Mapping[str, Line], prefix: str, colours: Mapping[str, str]) -> None:
    for key, (steps, values) in lines.items():
        colour, width, label = (INK, 1.9, "total") if key == prefix else (colours[key], 1.3, key[len(prefix) + 1 :])
        axes.plot(steps, values, color=colour, lw=width, label=label, marker="o" if len(steps) == 1 else "")
    if prefix != "loss":
        axes.set_ylim(bottom=0)  # shares and rates: a small change must look small
    axes.legend(fontsize=8)


def _lines(log: Log, prefix: str) -> dict[str, Line]:
    """Steps and values of each key that is `prefix` or begins with `prefix/`; the total first."""
    keys = sorted({key for entry in log for key in entry if key == prefix or key.startswith(f"{prefix}/")})
    lines = {}
    for key in keys:
        points = [(e["step"], e[key]) for e in log if e.get(key) is not None and e.get("step") is not None]
        lines[key] = ([step for step, _ in points], [value for _, value in points])
    return lines


def _exactly(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value, 1)
