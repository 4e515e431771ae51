"""Rows of Parquet and Arrow files, of folders that datasets wrote with save_to_disk, and of data sets on the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusion.data.reading.row import Number, Row

BATCH = 1024


def read_parquet(file: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file. Raises ValueError, with the file, for one that is damaged."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(BATCH):
            for values in _batch_rows(batch):
                yield Row(values, str(file), number := number + 1)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = str(error).split("\n")[0].rstrip(".: ")
        raise ValueError(f"{file} is no whole Parquet file: {why}. Copy or download it again.") from error


def read_saved(folder: Path, split: str) -> Iterator[Row]:
    """Yield the rows of a split of a folder that save_to_disk wrote. Raises ValueError for a damaged one, or no such split."""
    from datasets import DatasetDict, load_from_disk

    try:
        data = load_from_disk(str(folder))
    except (ValueError, KeyError, TypeError, OSError) as error:  # as datasets' own parsers raise
        raise ValueError(f"{folder} is no whole folder of datasets' save_to_disk: {error}") from error
    if isinstance(data, DatasetDict):
        if split not in data:
            raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(map(str, data))}.")
        data = data[split]
    elif split != str(data.split or "train"):
        raise ValueError(f"{folder} has no split {split!r}; it is {data.split or 'train'}.")
    return dataset_rows(data, str(folder))


def dataset_rows(data: Any, name: str) -> Iterator[Row]:
    """Yield the rows of a `datasets.Dataset`."""
    number = 0
    for table in data.with_format("arrow").iter(BATCH):
        for batch in table.to_batches():
            for values in _batch_rows(batch):
                yield Row(values, name, number := number + 1)


def _batch_rows(batch: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a record batch."""
    columns = [_values(column) for column in batch.columns]
    for row in range(batch.num_rows):
        yield {name: column[row] for name, column in zip(batch.schema.names, columns, strict=True)}


def _values(column: Any) -> list[Any]:
    """Return Python values of an Arrow array; numbers of 16 and 32 bits with the few digits that say which they are."""
    import pyarrow
    from pyarrow import types

    kind = column.type
    if isinstance(column, pyarrow.JsonArray):  # what datasets keeps as texts of JSON, such as objects of unlike keys
        return [None if each is None else json.loads(each, parse_float=Number) for each in _values(column.storage)]
    if isinstance(column, pyarrow.ExtensionArray):
        return _values(column.storage)
    if types.is_float16(kind) or types.is_float32(kind):
        numbers = column.to_numpy(zero_copy_only=False)  # a null becomes NaN, and is told by is_valid
        return [shortest(x) if there else None for x, there in zip(numbers, column.is_valid().to_pylist(), strict=True)]
    if types.is_struct(kind):
        fields = [_values(column.field(n)) for n in range(kind.num_fields)]
        names = [kind.field(n).name for n in range(kind.num_fields)]
        rows = ({name: each[n] for name, each in zip(names, fields, strict=True)} for n in range(len(column)))
        return [row if there else None for row, there in zip(rows, column.is_valid().to_pylist(), strict=True)]
    if any(check(kind) for check in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return [None if each is None else _values(each) for each in (scalar.values for scalar in column)]
    return column.to_pylist()


def shortest(number: Any) -> float:
    """Return a number of 16 or 32 bits (numpy's) with the few digits that say which it is: 0.1, not 0.10000000149011612."""
    return float(str(number))
