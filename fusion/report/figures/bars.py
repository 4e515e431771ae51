"""Panels of bars that lie on their side: one panel a domain, one bar a model or source, each with its number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusion.report.figures.drawing import INK, STYLE, Look, columns_for, wrapped
from fusion.runtime.run_file import Helping
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES, Interval
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS

SHORTEST = 0.012
"""Length of the shortest bar, as a share of the longest: a value near 0 is seen to be there."""
ROOM = 1.36
"""Length of an axis over its longest bar: the rest is for the number."""


@dataclass(frozen=True)
class Panel:
    """Values of one domain."""

    title: str
    values: Mapping[str, Interval | None]
    """Model -> value; None where it was not measured."""
    show: Callable[[float], str]
    scale: float = 1.0
    """What a value is multiplied by to be drawn."""
    kind: str = ""
    """Panels of one kind have the same axis."""


@rc_context(STYLE)
def bars(results: Sequence[Result], metric: str, look: Look | None = None, *, resamples: int = RESAMPLES) -> Figure:
    """A panel for each domain and one for their mean, a bar for each model, with 95% intervals and numbers.

    Raises ValueError where no result knows the metric.
    """
    scores = {result.model: summarise(result, resamples=resamples) for result in results}
    domains = dict.fromkeys(d for score in scores.values() for d, found in score.items() if metric in found)
    if not domains:
        raise ValueError(f"No result has {metric}, so there is nothing to draw.")
    panels = [
        Panel(
            domain_title(domain),
            {model: score.get(domain, {}).get(metric) for model, score in scores.items()},
            METRICS[metric].show,
            METRICS[metric].scale,
        )
        for domain in sorted(domains, key=lambda domain: domain == MEAN)
    ]
    better = "lower" if METRICS[metric].lower_is_better else "higher"
    return _draw(panels, look or Look(), f"{METRICS[metric].label}, {better} is better")


@rc_context(STYLE)
def helping(rows: Sequence[Helping], look: Look | None = None) -> Figure:
    """Match rate of each source in each domain, and below it the weight of each where sources are weighted."""
    if not rows:
        raise ValueError("There is no row on sources, so there is nothing to draw.")
    kinds = [("match rate", "match_rate", "{:.1%}"), ("weight", "weight", "{:.2f}")]
    domains, sources = dict.fromkeys(r.domain for r in rows), dict.fromkeys(r.source for r in rows)
    values = {(r.source, r.domain, field): getattr(r, field) for r in rows for _, field, _ in kinds}
    panels = [
        Panel(
            f"{name}, {domain_title(domain)}",
            {source: _exactly(values.get((source, domain, field))) for source in sources},
            form.format,
            kind=field,
        )
        for name, field, form in kinds
        if any(getattr(r, field) is not None for r in rows)
        for domain in domains
    ]
    return _draw(panels, look or Look(), "", columns=min(len(domains), 3))


def domain_title(domain: str) -> str:
    """What stands over the panel of a domain: the word tells it from a source of the same name."""
    return "mean over domains" if domain == MEAN else f"domain {domain}"


def _draw(panels: Sequence[Panel], look: Look, title: str, columns: int | None = None) -> Figure:
    columns = 1 if look.narrow else columns or columns_for(len(panels))
    rows = math.ceil(len(panels) / columns)
    most = max(len(panel.values) for panel in panels)
    titles = [wrapped(panel.title, columns) for panel in panels]
    lines = max(title.count("\n") for title in titles)
    height = rows * (0.42 + 0.14 * lines + 0.2 * most) + 0.3
    figure = Figure(figsize=(look.width(), height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for spare in axes[len(panels) :]:
        spare.remove()
    for number, (one, panel) in enumerate(zip(axes, panels, strict=False)):
        one.set_title(titles[number], fontstyle="italic", fontsize=9, pad=4)
        _panel(one, panel, look, number, _longest([other for other in panels if other.kind == panel.kind]))
    if title:
        figure.suptitle(title, x=0.0, ha="left", fontsize=10, fontweight="bold")
    return figure


def _longest(panels: Sequence[Panel]) -> float:
    ends = [
        end * panel.scale
        for panel in panels
        for value in panel.values.values()
        if value is not None
        for end in (value.value, value.high)
        if math.isfinite(end)
    ]
    return max(ends, default=0.0) or 1.0


def _panel(axes: Axes, panel: Panel, look: Look, number: int, longest: float) -> None:
    for index, (model, interval) in enumerate(panel.values.items()):
        if interval is None:
            axes.text(0, index, " not measured", va="center", fontsize=8, alpha=0.7)
            continue
        value = interval.value * panel.scale
        (bar,) = axes.barh(index, max(value, SHORTEST * longest), 0.72, color=look.colour(model, index), label=model)
        bar.set_gid(f"bar-{number}-{index}")
        end = _whisker(axes, interval, panel.scale, index)
        at = (max(value, end, SHORTEST * longest), index)
        axes.annotate(panel.show(interval.value), at, (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(panel.values)), [look.label(model) for model in panel.values])
    axes.set(xlim=(0, ROOM * longest), ylim=(len(panel.values) - 0.5, -0.5), xticks=[])
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(True)
    axes.grid(False)


def _whisker(axes: Axes, interval: Interval, scale: float, index: int) -> float:
    """Draw an interval, if it has finite ends and a width; return where its right end is, next to which the number stands."""
    low, high = interval.low * scale, interval.high * scale
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        return interval.value * scale
    value = interval.value * scale
    whiskers = np.array([[max(value - low, 0.0)], [max(high - value, 0.0)]])
    axes.errorbar([value], [index], xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1, alpha=0.75)
    return high


def _exactly(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value, 1)
