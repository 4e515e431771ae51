"""How every figure looks: colours, style, and the way to SVG that fits into a page and to PNG for documents."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

# readable on white and on near-black, and told apart with any common colour blindness (after Okabe & Ito 2008)
BLUE, ORANGE, GREY = "#0b84c4", "#e08a00", "#8b8f98"
OTHERS = ("#0a9a73", "#d2609b", "#8a7fd6", "#c95a2e", "#5d8f2f", "#3aa6b9")
INK = "#1b1e24"
"""Colour of text and axes; in SVG it becomes `currentColor`."""
WIDTH = 8.6
"""Width in inches of a figure that fills a page, so that text has one size in all."""

Colours = dict[str, str]
"""Model -> colour."""

STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.titlecolor": INK, "axes.titleweight": "bold", "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.titlepad": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.axisbelow": True, "axes.linewidth": 0.8,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": INK, "grid.alpha": 0.14, "grid.linewidth": 0.7,
    "axes.facecolor": "none", "figure.facecolor": "none", "legend.frameon": False, "font.size": 9,
    "xtick.major.size": 0, "ytick.major.size": 0, "svg.fonttype": "none", "svg.hashsalt": "fusion",
    "text.parse_math": False,  # a `$` in the name of a model is a dollar
}  # fmt: skip


def colours(result: str | None, baseline: str | None, pivots: Iterable[str], others: Iterable[str]) -> Colours:
    """The colour that a model has in every figure: blue is the result, orange the baseline, grey the pivot."""
    found = dict.fromkeys(pivots, GREY)
    if baseline is not None:
        found[baseline] = ORANGE
    if result is not None:
        found[result] = BLUE
    rest = [name for name in dict.fromkeys(others) if name not in found]
    return found | {name: OTHERS[index % len(OTHERS)] for index, name in enumerate(rest)}


def svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an `<svg>` element to stand inside a page: same figure, same text.

    `name` begins every id in it, so that several figures share a page; `alt` is read aloud instead of it.
    """
    buffer, none = io.StringIO(), dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata=none)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    wide = figure.get_figwidth() / WIDTH
    style = f'style="min-width: {100 * wide:.0f}%" ' if wide > 1 else ""  # a page scrolls it rather than make it small
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" {style}', 1)


def png(figure: Figure) -> bytes:
    """The figure as PNG on white, 160 dots per inch."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
