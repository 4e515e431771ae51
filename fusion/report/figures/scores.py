"""Figures of how far the fused model came: a radar over domains, and how much of the gap it closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusion.report.figures.bars import domain_title
from fusion.report.figures.drawing import GREY, INK, STYLE, Look, legend_below, wrapped
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES, Interval
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS

BEST = "best source"
SEEN = (-200.0, 300.0)
"""Percent of the gap that its figure shows: a source hardly better than fine-tuning makes shares without measure."""


@rc_context({**STYLE, "axes.titley": None})  # the title has to give way to the label of the topmost spoke
def radar(
    results: Sequence[Result],
    metric: str,
    sources: Sequence[str],
    look: Look | None = None,
    *,
    resamples: int = RESAMPLES,
) -> Figure:
    """One spoke for each domain; a line for each model but the sources, of which only the best on each spoke is drawn.

    Raises ValueError where there are fewer than three domains, or where lower is better: outward means better here.
    """
    scores = {result.model: summarise(result, resamples=resamples) for result in results}
    domains = list(
        dict.fromkeys(d for score in scores.values() for d, found in score.items() if d != MEAN and metric in found)
    )
    if len(domains) < 3 or METRICS[metric].lower_is_better:
        raise ValueError(f"A radar needs three domains and a metric that grows; {metric} has {len(domains)} domains.")
    values = {
        model: [
            METRICS[metric].scale * score[d][metric].value if metric in score.get(d, {}) else np.nan for d in domains
        ]
        for model, score in scores.items()
    }
    look = look or Look()
    figure = Figure(figsize=(look.width(0.5), 3.7), layout="constrained")
    axes = figure.subplots(subplot_kw={"projection": "polar"})
    known = [values[source] for source in sources if source in values]
    lines = {model: line for model, line in values.items() if model not in sources}
    if known:
        lines[BEST] = np.nanmax(np.array(known), axis=0).tolist()
    handles = _spokes(axes, domains, lines, results[0].model, look)
    axes.set_title(f"{METRICS[metric].label}, by domain")
    legend_below(figure, handles)
    return figure


@rc_context(STYLE)
def gap(shares: Mapping[str, Mapping[str, Interval]], label: str, start: str, look: Look | None = None) -> Figure:
    """How much of the gap between `start` (0%) and the best source (100%) is closed: a row a domain, a mark a model.

    `shares`: model -> domain -> share. A share beyond `SEEN` is an arrow at the edge with its number. Raises ValueError
    where no model has a domain.
    """
    look = look or Look()
    domains = list(dict.fromkeys(domain for of_model in shares.values() for domain in of_model))
    if not domains:
        raise ValueError(f"No source is better than {start}, so there is no gap to draw.")
    figure = Figure(figsize=(look.width(0.5), 1.5 + 0.5 * len(domains)), layout="constrained")
    axes, handles = figure.subplots(), {}
    for index, (model, of_model) in enumerate(shares.items()):
        place = 0.22 * (index - (len(shares) - 1) / 2)
        for domain, share in of_model.items():
            mark = _mark(axes, share, domains.index(domain) + place, look.colour(model, index), "oDsv"[index % 4])
            handles[look.label(model)] = mark
    for end in (0, 100):
        axes.axvline(end, color=INK, lw=1, alpha=0.6, zorder=0)
    axes.set_yticks(range(len(domains)), [wrapped(domain_title(domain), 4) for domain in domains])
    for tick in axes.get_yticklabels():
        tick.set_fontstyle("italic")
    axes.set(ylim=(len(domains) - 0.5, -0.5), title=wrapped(f"gap closed, {label}", 1))
    axes.set_xlabel(f"0% is {look.label(start)},\n100% the best source\nof the domain")
    _show_edges(axes)
    axes.xaxis.set_major_locator(MaxNLocator(4 if look.narrow else 6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:.0f}%")
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    legend_below(figure, handles)
    return figure


def _mark(axes: Axes, share: Interval, y: float, colour: str, shape: str) -> Artist:
    """A mark with its whisker, cut at the edges; beyond them an arrow and the number."""
    value, low, high = (100 * end for end in (share.value, share.low, share.high))
    x = min(max(value, SEEN[0]), SEEN[1])
    ends = [min(max(end, SEEN[0]), SEEN[1]) for end in (low, high)]
    whisker = np.array([[max(x - ends[0], 0.0)], [max(ends[1] - x, 0.0)]])
    axes.errorbar([x], [y], xerr=whisker, fmt="none", ecolor=colour, elinewidth=1.4)
    beyond = value < SEEN[0] or value > SEEN[1]
    if beyond:
        shape, side = ("<", 1) if value < SEEN[0] else (">", -1)
        number = f"{value:.0f}%".replace("-", "−")
        align = "left" if side == 1 else "right"
        axes.annotate(number, (x, y), (side * 7, 3), textcoords="offset points", ha=align, fontsize=8, color=colour)
    (mark,) = axes.plot([x], [y], shape, ms=6, color=colour, clip_on=False, ls="none")
    return mark


def _show_edges(axes: Axes) -> None:
    """Axis from below 0% to above 100%, with all that is drawn and no more than `SEEN`."""
    low, high = axes.get_xlim()
    axes.set_xlim(max(min(low, -8), SEEN[0]), min(max(high, 108), SEEN[1]))


def _spokes(
    axes: Axes, domains: Sequence[str], lines: Mapping[str, list[float]], first: str, look: Look
) -> dict[str, Artist]:
    """Draw a line for each model, and return it by its label, for the legend."""
    angles, handles = np.linspace(0, 2 * np.pi, len(domains), endpoint=False).tolist(), {}
    for index, (name, line) in enumerate(lines.items()):
        style: dict[str, Any] = {"color": look.colour(name, index), "lw": 2.2 if name == first else 1.4}
        if name == BEST:
            style = {"color": GREY, "lw": 1.2, "ls": (0, (3, 2))}
        around = ([*angles, angles[0]], [*line, line[0]])
        (handles[look.label(name)],) = axes.plot(*around, label=name, zorder=3 if name == first else 2, **style)
        if name == first:
            axes.fill(*around, color=style["color"], alpha=0.14)
    axes.set(theta_offset=np.pi / 2, theta_direction=-1)
    axes.set_xticks(angles, [wrapped(domain, 4) for domain in domains], fontstyle="italic")
    for label, angle in zip(axes.get_xticklabels(), angles, strict=True):  # outward from the circle
        side = round(float(np.sin(angle)), 6)
        label.set_horizontalalignment("center" if side == 0 else "left" if side > 0 else "right")
    axes.tick_params(axis="x", pad=1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set(rlabel_position=180 / len(domains))
    axes.set_ylim(0, max(1.0, *(value for line in lines.values() for value in line if not np.isnan(value))))
    axes.grid(True, axis="x")
    axes.spines["polar"].set(alpha=0.3)
    axes.tick_params(axis="y", labelsize=7)
    return handles
