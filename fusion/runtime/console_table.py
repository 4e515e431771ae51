"""Tables for a terminal of any width that never cut a number: narrower with less room, and one value a line with little."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text
from typing_extensions import override

_NUMBER = re.compile(r"[(\[]?[-−+±~<>≤≥]?[\d∞]")


@dataclass(frozen=True)
class TableLayout:
    """A way to draw a table in little room."""

    framed: bool
    numbers_break: Literal["nowhere", "before brackets", "between words"]
    """Where a cell of numbers may go on in another line; cells of text may between words."""
    longest_word: int
    """Characters after which a word may be broken; a number never is."""


LAYOUTS = (
    TableLayout(True, "nowhere", 24),
    TableLayout(True, "before brackets", 24),
    TableLayout(False, "before brackets", 24),
    TableLayout(False, "before brackets", 12),
    TableLayout(False, "between words", 12),
)
"""Tried in turn until the table fits."""


class ConsoleTable(Table):
    """A rich table that shows every number whole at any width of the terminal.

    Where it does not fit, headers and words wrap, then intervals in brackets go below their values, then the frame goes, and
    at last each row is printed as lines of `column: value`. Columns with `justify="right"` are those of numbers.
    """

    @override
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for layout in LAYOUTS:
            table = self._laid_out(console, layout)
            widths = _fit(table.columns, options.max_width - _frame_width(table), layout)
            if widths is not None:
                for column, width in zip(table.columns, widths, strict=True):
                    column.width, column.no_wrap, column.overflow = width, False, "fold"
                yield from Table.__rich_console__(table, console, options)
                return
        yield from self._records(console)

    def _laid_out(self, console: Console, layout: TableLayout) -> Table:
        """A copy whose headers and cells are texts."""
        table = copy.copy(self)
        table.columns, table.rows = [column.copy() for column in self.columns], []
        if not layout.framed:
            table.box, table.show_edge, table.padding = self.box and box.SIMPLE_HEAD, False, 0
        for column in table.columns:
            column.header = _text(console, column.header)
        for row, cells in zip(self.rows, self._rows_of_cells(), strict=True):
            texts = [_text(console, cell) for cell in cells]
            for column, text in zip(self.columns, texts, strict=True):
                if layout.numbers_break != "nowhere" and column.justify == "right":
                    text.plain = text.plain.replace(" (", "\n(")  # as long as before, so that styles stay in place
            table.add_row(*texts, style=row.style, end_section=row.end_section)
        return table

    def _records(self, console: Console) -> RenderResult:
        """Each row as lines, of which the second and later ones are indented."""
        if self.title:
            yield _text(console, self.title)
        heads = [" ".join(_text(console, c.header).plain.replace("-\n", "").split()) for c in self.columns]
        for cells in self._rows_of_cells():
            texts = [(head, _text(console, cell)) for head, cell in zip(heads, cells, strict=True)]
            for line, (head, text) in enumerate((head, text) for head, text in texts if text.plain):
                shown = Text(("  " if line else "") + (f"{head}: " if head else ""), style="dim") + text
                shown.overflow = "fold"
                yield shown
        if self.caption:
            yield _text(console, self.caption)

    def _rows_of_cells(self) -> list[tuple[object, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))


def _text(console: Console, cell: object) -> Text:
    return cell.copy() if isinstance(cell, Text) else console.render_str(str(cell), highlight=False)


def _frame_width(table: Table) -> int:
    """Cells that padding and borders take."""
    _, right, _, left = table.padding
    borders = len(table.columns) - 1 + (2 if table.show_edge else 0)
    return len(table.columns) * (left + right) + (borders if table.box else 0)


def _fit(columns: Sequence[Column], room: int, layout: TableLayout) -> list[int] | None:
    """Widths of columns that fit into `room`: each at least what may not be broken; None where there is no room for these."""
    widths = [_least_width(column, layout) for column in columns]
    most = [max(map(_line_width, (str(column.header), *map(str, column.cells)))) for column in columns]
    if sum(widths) > room:
        return None
    while sum(widths) < room and (short := [i for i, width in enumerate(widths) if width < most[i]]):
        widths[min(short, key=widths.__getitem__)] += 1  # the narrowest first, so that none takes all
    return widths


def _least_width(column: Column, layout: TableLayout) -> int:
    """Cells that the longest part of a column takes which may not be broken."""
    whole = column.justify == "right" and layout.numbers_break != "between words"
    cells = [line for cell in column.cells for line in (str(cell).split("\n") if whole else str(cell).split())]
    parts = [*str(column.header).split(), *cells]
    long = layout.longest_word
    return max((cell_len(p) if _NUMBER.match(p) else min(cell_len(p), long) for p in parts), default=1)


def _line_width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))
