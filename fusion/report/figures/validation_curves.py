"""Curves of validation examples: what every training said of them, at the steps at which it was read on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusion.report.figures.bars import domain_title
from fusion.report.figures.curves import DASHES, Style, curve_lines
from fusion.report.figures.drawing import STYLE, Look, columns_for, legend_in_gap, share_zero, wrapped
from fusion.report.run_contents import Log
from fusion_eval.results import MEAN

MAX_DOMAINS = 11
"""Domains that have a panel each beside their mean; of more, the mean alone is drawn."""


class ValidationCurve(NamedTuple):
    """A number that is read on validation examples: how it is called on the page, and what it is multiplied by there."""

    head: str
    scale: float = 1.0


VALIDATION_CURVES = {
    "eval_bits_per_byte": ValidationCurve("Bits per byte, lower is better"),
    "eval_mean_token_accuracy": ValidationCurve("Token accuracy, %, higher is better", 100),
    "eval_calibration_error": ValidationCurve("Calibration error, %, lower is better", 100),
    "eval_entropy": ValidationCurve("Entropy, nats"),
}
"""What is drawn, by what it is called in logs."""


@rc_context(STYLE)
def validation_curves(logs: Mapping[str, Log], name: str, look: Look | None = None) -> Figure:
    """A panel for the mean over domains and one for each domain: a line for each training, which begins at the pivot.

    `name` is one of `VALIDATION_CURVES`. Raises ValueError where no training was read on validation examples.
    """
    look = look or Look()
    lines = {training: found for training, log in logs.items() if (found := curve_lines(log, name))}
    if not lines:
        raise ValueError(f"No training log has {name!r}, so there is nothing to draw.")
    panels = _panels(logs, name)
    columns = 1 if look.narrow else columns_for(len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(look.width(), 1.75 * rows + 0.35), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    styles, scale = _styles(list(lines), look), VALIDATION_CURVES[name].scale
    for axes, (key, title) in zip(places, panels.items(), strict=False):
        axes.set(title=wrapped(title, columns), xlabel="step")
        for training, found in lines.items():
            steps, values = found.get(key, ([], []))
            axes.plot(steps, [value * scale for value in values], marker="o", ms=2.4, **styles[training])
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    share_zero(list(places[: len(panels)]))
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    legend_in_gap(figure, list(places[len(panels) :]), handles)
    return figure


def _panels(logs: Mapping[str, Log], name: str) -> dict[str, str]:
    """Title of each panel by its key in logs, in the order of the logs: the mean first, or the one domain that there is."""
    keys = dict.fromkeys(key for log in logs.values() for entry in log for key in entry if key.startswith(f"{name}/"))
    domains = {key: domain_title(key[len(name) + 1 :]) for key in keys}
    if len(domains) == 1:
        return domains
    return {name: domain_title(MEAN)} | (domains if len(domains) <= MAX_DOMAINS else {})


def _styles(trainings: list[str], look: Look) -> dict[str, Style]:
    """A training on one source alone, or of a source, has its colour and is dashed; the others have their model's."""
    styles = {}
    for number, training in enumerate(trainings):
        kind, _, source = training.partition("/")
        colour = look.colour(source or training, number)
        dash = "-" if not source else DASHES[1] if kind == "pairwise" else DASHES[2]
        of_source = look.label(source).removesuffix(" (source)")
        label = f"{kind}/{of_source}" if source else look.label(training)
        width = 1.1 if source else 1.7
        styles[training] = {"color": colour, "ls": dash, "lw": width, "label": label}
    return styles
