"""Figures of what was measured: what each model scored, how far it came, and what each source knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusion.report.figures.drawing import GREY, INK, OTHERS, STYLE, WIDTH, Colours
from fusion.runtime.run_file import Helping
from fusion_eval.results import MEAN, Result
from fusion_eval.statistics.bootstrap import RESAMPLES, Interval
from fusion_eval.statistics.comparison import summarise
from fusion_eval.statistics.metrics import METRICS


@rc_context(STYLE)
def bars(
    results: Sequence[Result], metric: str, colours: Colours | None = None, *, resamples: int = RESAMPLES
) -> Figure:
    """A group of bars for each domain and one for their mean, a bar for each model, with 95% intervals.

    Raises ValueError where no result knows the metric.
    """
    scores = {result.model: summarise(result, resamples=resamples) for result in results}
    domains = list(dict.fromkeys(d for score in scores.values() for d, found in score.items() if metric in found))
    if not domains:
        raise ValueError(f"No result has {metric}, so there is nothing to draw.")
    domains = sorted(domains, key=lambda domain: domain == MEAN)
    figure = Figure(figsize=(max(WIDTH, 0.9 + 0.16 * len(scores) * len(domains)), 3.0), layout="constrained")
    axes = figure.subplots()
    series = {model: [score.get(domain, {}).get(metric) for domain in domains] for model, score in scores.items()}
    _groups(axes, domains, series, METRICS[metric].scale, colours or {})
    axes.set_title(f"{METRICS[metric].label}, {'lower' if METRICS[metric].lower_is_better else 'higher'} is better")
    figure.legend(loc="outside lower center", ncols=min(len(scores), 7), handlelength=1, handleheight=1)
    return figure


@rc_context(STYLE)
def radar(
    results: Sequence[Result],
    metric: str,
    sources: Sequence[str],
    colours: Colours | None = None,
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
    figure = Figure(figsize=(WIDTH / 2, 3.7), layout="constrained")
    axes = figure.subplots(subplot_kw={"projection": "polar"})
    known = [values[source] for source in sources if source in values]
    lines = {model: line for model, line in values.items() if model not in sources}
    if known:
        lines["best source"] = np.nanmax(np.array(known), axis=0).tolist()
    _spokes(axes, domains, lines, results[0].model, colours or {})
    axes.set_title(METRICS[metric].label)
    figure.legend(loc="outside lower center", ncols=3, handlelength=1.4)
    return figure


@rc_context(STYLE)
def gap(way: Mapping[str, Mapping[str, Interval]], label: str, colours: Colours | None = None) -> Figure:
    """How much of the way from the pivot to the best source each model went: a row for each domain, a mark for each model.

    `way`: model -> domain -> share. Raises ValueError where no model has a domain.
    """
    domains = list(dict.fromkeys(domain for shares in way.values() for domain in shares))
    if not domains:
        raise ValueError("No source is better than the pivot, so there is no gap to draw.")
    figure = Figure(figsize=(WIDTH / 2, 3.7), layout="constrained")
    axes = figure.subplots()
    for index, (model, shares) in enumerate(way.items()):
        y = [domains.index(domain) + 0.22 * (index - (len(way) - 1) / 2) for domain in shares]
        x, low, high = (np.array([100 * getattr(s, end) for s in shares.values()]) for end in ("value", "low", "high"))
        colour, shape = (colours or {}).get(model, OTHERS[index]), "oDsv"[index % 4]
        whiskers = np.nan_to_num(np.stack([x - low, high - x]), nan=0.0, posinf=0.0).clip(min=0)
        axes.errorbar(x, y, xerr=whiskers, fmt=shape, ms=6, color=colour, label=model, elinewidth=1.4)
    for end, alpha in ((0, 0.6), (100, 0.6)):
        axes.axvline(end, color=INK, lw=1, alpha=alpha, zorder=0)
    axes.set_yticks(range(len(domains)), domains)
    axes.set(
        ylim=(len(domains) - 0.5, -0.5),
        title=label,
        xlabel="0 % is the pivot, 100 % the best source",
    )
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -200), min(high, 300))  # a source hardly better than the pivot makes shares without measure
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@rc_context(STYLE)
def helping(rows: Sequence[Helping], colours: Colours | None = None) -> Figure:
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
        _groups(axes, domains, series, scale, colours or {})
        axes.set_title(title)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(sources), 5), handlelength=1, handleheight=1
    )
    return figure


def _groups(
    axes: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Interval | None]], scale: float, colours: Colours
) -> None:
    """Bars side by side in each group; no bar where there is no value, no whisker where the interval has no end."""
    width = 0.82 / len(series)
    for index, (name, intervals) in enumerate(series.items()):
        at = np.arange(len(groups)) + (index - (len(series) - 1) / 2) * width
        value, low, high = (
            np.array([np.nan if i is None else getattr(i, end) * scale for i in intervals])
            for end in ("value", "low", "high")
        )
        whiskers = np.nan_to_num(np.stack([value - low, high - value]), nan=0.0, posinf=0.0).clip(min=0)
        axes.bar(at, value, width * 0.88, label=name, color=colours.get(name, OTHERS[index % len(OTHERS)]))
        seen = whiskers.any(0)
        axes.errorbar(at[seen], value[seen], whiskers[:, seen], fmt="none", ecolor=INK, elinewidth=1, alpha=0.75)
    axes.set_xticks(range(len(groups)), list(groups))


def _spokes(axes: Axes, domains: Sequence[str], lines: Mapping[str, list[float]], first: str, colours: Colours) -> None:
    angles = np.linspace(0, 2 * np.pi, len(domains), endpoint=False).tolist()
    for index, (name, line) in enumerate(lines.items()):
        look = {"color": colours.get(name, OTHERS[index % len(OTHERS)]), "lw": 2.2 if name == first else 1.4}
        if name == "best source":
            look = {"color": GREY, "lw": 1.2, "ls": (0, (3, 2))}
        axes.plot([*angles, angles[0]], [*line, line[0]], label=name, zorder=3 if name == first else 2, **look)
        if name == first:
            axes.fill([*angles, angles[0]], [*line, line[0]], color=look["color"], alpha=0.14)
    axes.set(theta_offset=np.pi / 2, theta_direction=-1)
    axes.set_xticks(angles, list(domains))
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


def _exactly(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value, 1)
