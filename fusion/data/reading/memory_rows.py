"""Rows that are in memory already: dictionaries, datasets of `datasets` in any format, tables of pandas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy

from fusion.data.reading.arrow_files import BATCH, dataset_rows, shortest


def memory_rows(source: Iterable[Any]) -> Iterator[Any]:
    """Yield the rows with Python's own values, as a file with the same rows gives them; what is no row is yielded as it is."""
    if hasattr(source, "to_dict") and hasattr(source, "iloc"):
        rows: Iterable[Any] = _table_rows(source)
    elif hasattr(source, "with_format") and hasattr(source, "features"):
        rows = _dataset_values(source)
    else:
        rows = source
    yield from (plain_values(row) if isinstance(row, Mapping) else row for row in rows)


def plain_values(value: Any) -> Any:
    """Return a value with lists for arrays and tuples, and Python's numbers for numpy's, in objects and lists too."""
    if isinstance(value, Mapping):
        return {name: plain_values(each) for name, each in value.items()}
    if isinstance(value, list | tuple) or (isinstance(value, numpy.ndarray) and value.ndim):
        return [plain_values(each) for each in value]
    if isinstance(value, numpy.ndarray):
        value = value[()]
    return _plain_number(value) if isinstance(value, numpy.generic) else value


def _plain_number(value: numpy.generic) -> Any:
    if isinstance(value, numpy.floating) and value.itemsize < 8:
        return shortest(value)
    if isinstance(value, numpy.datetime64):
        return value.astype("datetime64[us]").item()  # of nanoseconds, item gives a number
    return value.item()


def _dataset_values(data: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a `datasets.Dataset` or `IterableDataset`, whatever format they are set to."""
    from datasets import Dataset

    if isinstance(data, Dataset):
        yield from (row.values for row in dataset_rows(data, ""))
        return
    rows = iter(data.with_format(None))
    if data.features is None:
        yield from rows
        return
    while batch := list(islice(rows, BATCH)):
        yield from (row.values for row in dataset_rows(Dataset.from_list(batch, features=data.features), ""))


def _table_rows(table: Any) -> Iterator[dict[str, Any]]:
    columns = [_cells(column) for _, column in table.items()]
    return (dict(zip(table.columns, cells, strict=True)) for cells in zip(*columns, strict=True))


def _cells(column: Any) -> list[Any]:
    """Return the values of a column of pandas; NaN is how a table says: nothing there."""
    values, there = column.astype(object).tolist(), column.notna().tolist()
    if getattr(column.dtype, "kind", "") == "f" and column.dtype.itemsize < 8:
        written = numpy.float16 if column.dtype.itemsize == 2 else numpy.float32
        values = [shortest(written(value)) if known else None for value, known in zip(values, there, strict=True)]
    return [value if known else None for value, known in zip(values, there, strict=True)]
