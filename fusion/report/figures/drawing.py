"""How every figure looks: colours, style, and the way to SVG that fits into a page and to PNG for documents."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# readable on white and on near-black, and told apart with any common colour blindness (after Okabe & Ito 2008)
BLUE, ORANGE, GREY = "#0b84c4", "#e08a00", "#8b8f98"
OTHERS = ("#0a9a73", "#d2609b", "#8a7fd6", "#c95a2e", "#5d8f2f", "#3aa6b9")
INK = "#1b1e24"
"""Colour of text and axes; in SVG it becomes `currentColor`."""
WIDTH = 8.6
"""Width in inches of a figure that fills a page, so that text has one size in all."""
NARROW = 3.4
"""Width in inches of a figure that fills a phone: its text is then as large as on a page."""

TITLE_LETTERS = {1: 19, 2: 26, 3: 23, 4: 18}
"""Letters of a line of a panel's title, by columns; a single column may be that of a phone, beside long labels."""

MAX_IN_GAP = 7
"""Lines of a legend that fit into the place of a panel."""

Colours = dict[str, str]
"""Model -> colour."""


@dataclass(frozen=True)
class Look:
    """Colours and labels of models, and for which width a figure is drawn."""

    colours: Colours = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """Model -> what stands in the figure for it."""
    narrow: bool = False
    """For a phone: panels below each other."""

    def colour(self, model: str, index: int) -> str:
        """The model's colour, or one by its place where it has none."""
        return self.colours.get(model, OTHERS[index % len(OTHERS)])

    def label(self, model: str) -> str:
        """What stands in the figure for a model."""
        return self.labels.get(model, model)

    def width(self, share: float = 1.0) -> float:
        """Width in inches of a figure that fills a share of the page; on a phone it fills all."""
        return NARROW if self.narrow else WIDTH * share


STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.titlecolor": INK, "axes.titleweight": "bold", "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.titlepad": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.axisbelow": True, "axes.linewidth": 0.8,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": INK, "grid.alpha": 0.14, "grid.linewidth": 0.7,
    "axes.facecolor": "none", "figure.facecolor": "none", "legend.frameon": False, "font.size": 9,
    "xtick.major.size": 0, "ytick.major.size": 0, "svg.fonttype": "none", "svg.hashsalt": "fusion",
    "text.parse_math": False,  # a `$` in the name of a model is a dollar
    "axes.titley": 1.0,  # nothing stands over a panel that its title had to give way to; looking for it takes long
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


def columns_for(panels: int) -> int:
    """Columns of a figure that fills a page: four where rows of four are full, or else at most three."""
    return 4 if panels % 4 == 0 else min(panels, 3)


def wrapped(title: str, columns: int) -> str:
    """A title in lines that fit over one of so many panels; no layout keeps it from the next one."""
    lines = textwrap.wrap(title.replace("_", "_ "), TITLE_LETTERS[columns])  # names of tasks may end a line after _
    return "\n".join(line.replace("_ ", "_") for line in lines) or title


def legend_below(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """A legend below the panels, with as many columns as fit into the width of the figure."""
    for columns in range(min(len(handles), 7), 0, -1):
        legend = figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=columns, handlelength=1.4
        )
        box = legend.get_window_extent(FigureCanvasAgg(figure).get_renderer())
        if columns == 1 or box.width <= figure.bbox.width:
            return
        legend.remove()


def legend_in_gap(figure: Figure, free: Sequence[Axes], handles: Mapping[str, Artist]) -> None:
    """A legend in the first of the places that the panels leave free in their rows, or below where they leave none."""
    for axes in free[1:]:
        axes.remove()
    if free and len(handles) <= MAX_IN_GAP:
        free[0].set_axis_off()
        free[0].legend(list(handles.values()), list(handles), loc="center left", handlelength=1.4)
        return
    for axes in free[:1]:
        axes.remove()
    legend_below(figure, handles)


def share_zero(panels: Sequence[Axes]) -> None:
    """Let all panels begin at 0 where one falls by half or more; where all change little, a change is seen without the 0."""
    if any(low < high / 2 for low, high in (axes.get_ylim() for axes in panels)):
        for axes in panels:
            axes.set_ylim(bottom=0)


def lay_out(figure: Figure) -> None:
    """Place panels, titles and legends once for every file of the figure; matplotlib would do it, and draw, again for each."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an `<svg>` element to stand inside a page: same figure, same text.

    `name` begins every id in it, so that several figures share a page; `alt` is read aloud instead of it.
    """
    buffer, none = io.StringIO(), dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with rc_context(STYLE):
        lay_out(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata=none)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def png(figure: Figure) -> bytes:
    """The figure as PNG on white, 160 dots per inch."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        lay_out(figure)
        figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
