"""How often answers to validation prompts pass, round by round."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusion.report.figures.drawing import INK, OTHERS, STYLE, Look, legend_below
from fusion.runtime.run_file import RoundScore

MAX_DOMAINS = len(OTHERS)
"""Domains with a line each; of more, their mean alone is drawn."""


@rc_context(STYLE)
def round_curves(scores: Sequence[Sequence[RoundScore]], kept: int, look: Look | None = None) -> Figure:
    """Draw pass@1 in % after each round from 0 on: a line for each domain, a bold one for their mean; the kept round dotted."""
    look, lines = look or Look(), dict[str, list[float]]()
    for of_round in scores:
        for score in of_round:
            lines.setdefault(score.domain, []).append(100 * score.pass_at_1)
    means = [sum(values) / len(lines) for values in zip(*lines.values(), strict=True)]
    figure = Figure(figsize=(look.width(), 2.5), layout="constrained")
    axes = figure.subplots()
    if len(lines) <= MAX_DOMAINS:
        for number, (domain, values) in enumerate(lines.items()):
            axes.plot(values, marker="o", ms=3, lw=1.3, color=OTHERS[number], label=domain)
    if len(lines) > 1:
        axes.plot(means, marker="o", ms=3, lw=2.2, color=INK, label="mean of domains")
    axes.axvline(kept, color=INK, lw=0.9, ls=":", label="kept")
    axes.set(title="pass@1, %", xlabel="round (0: the first training)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    handles, labels = axes.get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)))
    return figure
