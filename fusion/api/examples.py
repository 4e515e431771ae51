"""Examples from a data file or from rows in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusion.data import datasets
from fusion.data.example import Example

AnyExamples = str | Path | Iterable[Example | Mapping[str, Any]]
"""A data file, a folder, a hub id or `builtin:SKILL`; or examples, or rows such as `{"prompt": ..., "response": ...}`."""


def read_examples(source: AnyExamples, *, domain: str = "data", **settings: Any) -> list[Example]:
    """Return the examples of a data set, or of rows in memory: a list of dictionaries, or a dataset of `datasets`.

    The names of the columns tell what is what (`prompt` and `response`, `messages`, `instruction` and `output` ...), or
    `settings` do. Rows without a prompt or a response are left out. Examples are returned as they are.

    Args:
        source: A file, a folder, a hub id, `builtin:SKILL`, or rows: `[{"prompt": "1 + 1", "response": "2"}]`.
        domain: A name of your own for these examples, by which results are shown.
        settings: Those of a data set in a configuration: `prompt="{question}"`, `where={"level": 5}`, `limit=100`; docs/data.md
            says how columns are read, and `fusion schema` lists all settings.

    Raises:
        ValueError: With the columns there are, where they do not tell; and where no row makes an example.
    """
    if isinstance(source, (str, Path)):
        return datasets.load(str(source), domain=domain, **settings)
    rows = list(source)
    examples = [row for row in rows if isinstance(row, Example)]
    if not examples:
        return datasets.from_rows(
            (row for row in rows if not isinstance(row, Example)), domain=domain, **settings
        ).examples
    if settings or len(examples) < len(rows):
        raise ValueError(
            f"{', '.join(settings) or 'rows'} beside examples: {len(examples)} of {len(rows)} are examples already, for which "
            "nothing is left to read. Give rows alone, or examples alone without settings."
        )
    return examples
