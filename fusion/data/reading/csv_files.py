"""Rows of CSV and TSV files: every cell is the text that stands there, and an empty cell is nothing."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from fusion.data.reading.row import Row
from fusion.data.reading.streams import format_suffix, read_text


def read_csv(file: Path) -> Iterator[Row]:
    """Yield a row for each record; the first names the columns.

    Columns are separated by commas, in .tsv by tabs, and by semicolons where the first record has those and no comma. Raises
    ValueError, with file, row and line, for a record of another length than the first and for quotes that do not close.
    """
    text = read_text(file)
    csv.field_size_limit(sys.maxsize)
    records = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(file, text), strict=True)
    columns: list[str] | None = None
    number = 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{file}, row {number + 1} (line {records.line_num}): {error}. Quotes inside a quoted cell are written twice."
            ) from error
        if not record:
            continue
        if columns is None:
            columns = _columns(record, file)
            continue
        number += 1
        if len(record) != len(columns):
            raise ValueError(
                f"{file}, row {number} (line {records.line_num}): it has {len(record)} cells, and there are {len(columns)} "
                f"columns ({', '.join(columns)}). Put a text with commas or line breaks in quotes."
            )
        yield Row({name: cell or None for name, cell in zip(columns, record, strict=True)}, str(file), number)


def _delimiter(file: Path, text: str) -> str:
    if format_suffix(file) == ".tsv":
        return "\t"
    first = text[: text.find("\n") + 1] or text
    return ";" if ";" in first and "," not in first else ","


def _columns(record: list[str], file: Path) -> list[str]:
    if twice := [name for n, name in enumerate(record) if name in record[:n]]:
        raise ValueError(f"{file} has two columns named {twice[0]!r}; rename one in its first line.")
    return record
