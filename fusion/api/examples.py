"""Examples from a data file or from rows in memory."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fusion.core.settings import suggest
from fusion.data import datasets
from fusion.data.datasets import DataSet
from fusion.data.example import Example
from fusion.data.make_examples import ExampleMaker
from fusion.data.reading.memory_rows import memory_rows
from fusion.runtime.console import show

AnyExamples = str | Path | Iterable[Any]
"""A data file, a folder, a hub id or `builtin:SKILL`; or examples, rows such as `{"prompt": ..., "response": ...}`, a table."""


def read_examples(source: AnyExamples, *, domain: str = "data", **settings: Any) -> list[Example]:
    """Return the examples of a data set, or of rows in memory: dictionaries, a dataset of `datasets`, a table of pandas.

    The names of the columns tell what is what (`prompt` and `response`, `messages`, `instruction` and `output` ...), or
    `settings` do. Rows without a prompt or a response are left out; it is said how many, and which columns nothing reads.
    Examples are returned as they are.

    Args:
        source: A file, a folder, a hub id, `builtin:SKILL`, or rows: `[{"prompt": "1 + 1", "response": "2"}]`.
        domain: A name of your own for these examples, by which results are shown.
        settings: Those of a data set in a configuration: `prompt="{question}"`, `where={"level": 5}`, `limit=100`; docs/data.md
            says how columns are read, and `fusion schema` lists all settings.

    Raises:
        ValueError: With the columns there are, where they do not tell; and where no row makes an example.
    """
    _refuse_other_settings(settings, of_rows=not isinstance(source, (str, Path)))
    if isinstance(source, (str, Path)):
        return _said(datasets.read(str(source), domain=domain, **settings))
    rows = list(_rows(source))
    for number, row in enumerate(rows):
        if not isinstance(row, (Mapping, Example)):
            raise ValueError(f"row {number} is {row!r:.60}; give {WANTED}.")
    examples = [row for row in rows if isinstance(row, Example)]
    if not examples:
        return _said(
            datasets.from_rows([row for row in rows if not isinstance(row, Example)], domain=domain, **settings)
        )
    if settings or len(examples) < len(rows):
        raise ValueError(
            f"{', '.join(settings) or 'rows'} beside examples: {len(examples)} of {len(rows)} are examples already, for which "
            "nothing is left to read. Give rows alone, or examples alone without settings."
        )
    return examples


def _said(found: DataSet) -> list[Example]:
    """The examples of a data set, after saying which rows make none, and which columns are not used."""
    unused = [f"not used: {', '.join(found.unused)}"] if found.unused else []
    show(f"{found.path}: {each}" for each in [*found.left_out, *found.notes, *unused])
    return found.examples


def _rows(source: Any) -> Iterable[Any]:
    """Return the rows of a list, a dataset or a table of pandas. Raises ValueError for what holds splits or columns."""
    if isinstance(source, Mapping):
        names = ", ".join(map(str, source))
        if all(hasattr(each, "column_names") for each in source.values()):
            raise ValueError(f"These are the splits {names}; give one of them, such as data[{next(iter(source))!r}].")
        raise ValueError(
            f"This is one mapping, of {names}, and no list of rows; give [{{...}}, ...], or columns as a dataset: "
            "datasets.Dataset.from_dict(columns)."
        )
    if not isinstance(source, Iterable):
        raise ValueError(f"Examples are a {type(source).__name__}; give {WANTED}.")
    return memory_rows(source)


WANTED = "a list of rows such as {'prompt': ..., 'response': ...}, a dataset, or the path of a file"
OF_FILES = ("name", "split", "revision", "label_noise")
"""Settings of a data set that rows in memory have no use for."""


def _refuse_other_settings(settings: Collection[str], *, of_rows: bool) -> None:
    """Raise ValueError for a setting that is none, or none of rows."""
    known = {*inspect.signature(datasets.read).parameters, *(each.name for each in fields(ExampleMaker))}
    known -= {"path", "columns", "domain", "optional", "history"}
    for name in settings:
        if name not in known:
            raise ValueError(f"{name} is no setting of a data set{suggest(name, known)}")
        if of_rows and name in OF_FILES:
            raise ValueError(
                f"{name} is for files and data sets on a hub, and these are rows; take those that you want."
            )
