"""Curves of the training logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusion.report.figures.drawing import INK, OTHERS, STYLE, Look, columns_for, legend_in_gap, share_zero, wrapped
from fusion.report.run_contents import Log

POINTS = 120
"""Points of a curve; longer logs are drawn as means of neighbouring entries."""
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
Line = tuple[list[float], list[float]]
"""Steps, and a value at each."""
Style = dict[str, Any]
"""How a line is drawn: keywords of matplotlib."""


TOTALS = {"loss": "total", "grad_norm": "gradient norm", "entropy": "entropy, nats"}
"""What the line of a prefix itself is called."""


@rc_context(STYLE)
def curves(logs: Mapping[str, Log], prefix: str = "loss", look: Look | None = None) -> Figure:
    """Draw a panel for each training: the logged number `prefix` (bold) and each `prefix/<part>`, such as a term, over steps.

    A part that ends in the name of a source has its colour. Raises ValueError where no log has such a key.
    """
    look = look or Look()
    found = {name: lines for name, log in logs.items() if (lines := curve_lines(log, prefix))}
    if not found:
        raise ValueError(f"No training log has {prefix!r}, so there is nothing to draw.")
    styles = _styles(sorted({key for lines in found.values() for key in lines} - {prefix}), prefix, look)
    columns = 1 if look.narrow else columns_for(len(found))
    rows = math.ceil(len(found) / columns)
    height = (2.1 if prefix == "loss" else 1.75) * rows + 0.35
    figure = Figure(figsize=(look.width(), height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, lines) in zip(panels, found.items(), strict=False):
        _panel(axes, lines, prefix, styles)
        axes.set(title=wrapped(f"training {name}", columns), xlabel="step")
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if prefix in ("loss", "calibration"):
        share_zero(list(panels[: len(found)]))
    legend_in_gap(figure, list(panels[len(found) :]), handles)
    return figure


def _panel(axes: Axes, lines: Mapping[str, Line], prefix: str, styles: Mapping[str, Style]) -> None:
    for key, (steps, values) in lines.items():
        style = {"color": INK, "lw": 1.9, "label": TOTALS.get(prefix, prefix)} if key == prefix else styles[key]
        axes.plot(steps, values, marker="o" if len(steps) == 1 else "", **style)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if prefix not in ("loss", "calibration"):
        axes.set_ylim(bottom=0)  # shares and rates: a small change must look small


def _styles(parts: Sequence[str], prefix: str, look: Look) -> dict[str, Style]:
    """Colour by source, or its own where a part belongs to none; another dash for each further objective."""
    colours = look.colours
    heads = list(dict.fromkeys(part.rpartition("/")[0] for part in parts if part.rpartition("/")[2] in colours))
    own = [part for part in parts if part.rpartition("/")[2] not in colours]
    styles = {}
    for part in parts:
        head, _, tail = part.rpartition("/")
        colour = colours[tail] if tail in colours else OTHERS[-1 - own.index(part) % len(OTHERS)]
        dash = DASHES[heads.index(head) % len(DASHES)] if tail in colours else "-"
        styles[part] = {"color": colour, "ls": dash, "lw": 1.3, "label": _label(part[len(prefix) + 1 :], look)}
    return styles


def _label(part: str, look: Look) -> str:
    """Name of a line: the objective, and the source with its role."""
    head, _, source = part.rpartition("/")
    return f"{head}, {look.label(source)}" if head and source in look.colours else look.label(part)


def curve_lines(log: Log, prefix: str) -> dict[str, Line]:
    """Steps and values of each key that is `prefix` or begins with `prefix/`; the total first."""
    keys = sorted({key for entry in log for key in entry if key == prefix or key.startswith(f"{prefix}/")})
    lines = {}
    for key in keys:
        found = [(entry.get("step"), entry.get(key)) for entry in log]
        points = [(step, value) for step, value in found if step is not None and value is not None]
        lines[key] = _thinned([step for step, _ in points], [value for _, value in points])
    return lines


def _thinned(steps: Sequence[int | float], values: Sequence[int | float]) -> Line:
    """Return at most `POINTS` points of a curve, each the mean of neighbouring ones."""
    size = math.ceil(len(steps) / POINTS)
    starts = range(0, len(steps), max(1, size))
    return tuple([float(np.mean(numbers[i : i + size])) for i in starts] for numbers in (steps, values))  # type: ignore[return-value]
