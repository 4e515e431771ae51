"""Load data sets as examples: messages, a response and a domain."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, NamedTuple

from fusion.data.example import Example
from fusion.data.make_examples import AUTO, ExampleMaker
from fusion.data.reading import Row, places, read_rows, value_text
from fusion.quickstart import skills

BUILTIN = "builtin:"
HEAD = 1000
"""Rows whose columns tell what is what."""
ROWS = "the rows"
"""What messages call rows in memory."""


@dataclass(frozen=True)
class LeftOut:
    """Rows that make no example."""

    reason: str
    count: int
    first: str
    """Where the first of them stands."""

    def __str__(self) -> str:
        return f"{self.count:,} {'row' if self.count == 1 else 'rows'} left out: {self.reason} (first: {self.first})"


@dataclass(frozen=True)
class DataSet:
    """The examples of one data set, and how it was read."""

    path: str
    examples: list[Example]
    reading: str
    """Which columns are what, for people."""
    left_out: list[LeftOut]
    """Rows that make no example, by reason."""
    unused: list[str]
    """Columns that nothing reads."""
    notes: list[str] = field(default_factory=list)
    """What else of the rows is not read, for people."""

    def describe(self) -> str:
        """One line, for people: how the data set was read, and what of it is not used."""
        count = len(self.examples)
        parts = [f"{count:,} example{'s' * (count != 1)}", self.reading, *map(str, self.left_out), *self.notes]
        return f"{self.path}: {'; '.join(parts)}" + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def load(path: str, **settings: Any) -> list[Example]:
    """Load the examples of one data set; see `read`."""
    return read(path, **settings).examples


def read(
    path: str,
    *,
    domain: str,
    name: str | None = None,
    split: str = "train",
    where: Mapping[str, Any] | None = None,
    revision: str | None = None,
    skip: int = 0,
    limit: int | None = None,
    shuffle: int | None = None,
    label_noise: float = 0.0,
    **columns: Any,
) -> DataSet:
    """Read one data set: `builtin:SKILL`, a data file, a folder or pattern of them (`fusion.data.reading.places`), or a hub id.

    `columns` say what is what, and are those of `ExampleMaker`: `prompt` and `response` are filled from the columns of a row
    ("{question}"), or `messages` names a column with a conversation whose last assistant turn is the response; by default the
    names of the columns tell. `response: None` makes prompts alone. `prompt_chars` moves that much of the response's
    beginning into the prompt (cut after a space), `response_chars` limits what is left: with both, raw text becomes
    continuation. `where` keeps the rows whose columns have these values. `look_ahead` is the last message as sources with
    `look_ahead: true` read it, with columns in braces and {last_message} for that message as it is. With `as_raw_text`
    messages and response become one text, a paragraph each, all of which is the response, for no template to wrap. `tests`
    makes the program that checks an answer; a column that is a list gives a line for each entry. `kept_columns` are kept with
    each example (`Example.columns`), for a check that names them.

    Rows without a prompt or a response are left out and counted. Raises ValueError for a missing column, for a value that is
    no text, and where nothing is left; FileNotFoundError for a missing file.
    """
    if not path.startswith(BUILTIN):
        rows = read_rows(path, name=name, split=split, revision=revision)
        choice = RowChoice(split, where, skip, limit, shuffle)
        return _data_set(rows, path, choice, ExampleMaker(domain=domain, **columns))
    made = skills.make_questions(
        path.removeprefix(BUILTIN), skip + (limit or 200), seed=shuffle or 0, label_noise=label_noise, split=split
    )
    rows = (Row(values, path, number) for number, values in enumerate(made, 1))
    choice = RowChoice(split, where, skip, limit)  # they were made in an order by chance
    found = _data_set(rows, path, choice, ExampleMaker(domain=domain, **columns))
    return replace(found, reading="made by rule", unused=[])


def from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    domain: str,
    where: Mapping[str, Any] | None = None,
    skip: int = 0,
    limit: int | None = None,
    shuffle: int | None = None,
    **columns: Any,
) -> DataSet:
    """Make examples of rows in memory, as `read` does of those of a file, and with the same errors."""
    numbered = (Row(values, ROWS, number) for number, values in enumerate(rows, 1))
    choice = RowChoice("all", where, skip, limit, shuffle)
    return _data_set(numbered, ROWS, choice, ExampleMaker(domain=domain, **columns))


class RowChoice(NamedTuple):
    """Which rows of a data set are taken; see `read`."""

    split: str
    where: Mapping[str, Any] | None
    skip: int
    limit: int | None
    shuffle: int | None = None


def _data_set(rows: Iterator[Row], path: str, choice: RowChoice, maker: ExampleMaker) -> DataSet:
    """The examples of the rows that are chosen; `path` names them in messages."""
    if choice.skip < 0 or (choice.limit is not None and choice.limit < 1):
        raise ValueError(
            f"{path}: skip is {choice.skip} and limit {choice.limit}; skip is at least 0, limit at least 1."
        )
    head, seen = list(islice(rows, HEAD)), dict[str, None]()
    if not head:
        raise ValueError(_no_example(path, choice, []))
    where = choice.where or {}
    _refuse_undesired(path, head, where, maker)
    maker, reading = maker.resolved(_columns(head), path)
    wanted = (row for row in _watched(chain(head, rows), seen) if _matches(row, where))
    if choice.shuffle is not None:
        shuffled = list(wanted)
        random.Random(choice.shuffle).shuffle(shuffled)
        wanted = iter(shuffled)
    examples, left_out, answered = _examples(islice(wanted, choice.skip, None), maker, choice.limit)
    _refuse_missing(path, maker.needed, where, seen)
    if not examples:
        raise ValueError(_no_example(path, choice, left_out))
    unused = [column for column in seen if column not in maker.columns and column not in where]
    return DataSet(path, examples, reading, left_out, unused, _notes(answered))


def _notes(answered: int) -> list[str]:
    rows = "row ends" if answered == 1 else "rows end"
    return [f"{answered:,} {rows} with an answer, which is not read (response: null)"] if answered else []


def _refuse_undesired(path: str, head: Sequence[Row], where: Mapping[str, Any], maker: ExampleMaker) -> None:
    """Raise ValueError for TRL's unpaired preference data, of which the undesired completions would be learned from too."""
    labelled = all("completion" in row.values and isinstance(row.values.get("label"), bool) for row in head)
    if labelled and maker.response == AUTO and "label" not in where:
        raise ValueError(
            f"{path}: column label says of each completion whether it is desired. Take those that are, with "
            'where: {label: true}, or all of them, with response: "{completion}".'
        )


def is_hub_id(path: str) -> bool:
    """Return whether a path is a hub id: neither built in, nor like a file, nor there."""
    return not path.startswith(BUILTIN) and places.is_hub_id(path)


def _columns(rows: Iterable[Row]) -> dict[str, None]:
    """Return the columns of rows, in the order in which they first appear."""
    return dict.fromkeys(name for row in rows for name in row.values)


def _watched(rows: Iterable[Row], seen: dict[str, None]) -> Iterator[Row]:
    """Yield the rows, and keep the columns that they have."""
    for row in rows:
        seen.update(dict.fromkeys(row.values))
        yield row


def _examples(rows: Iterable[Row], maker: ExampleMaker, limit: int | None) -> tuple[list[Example], list[LeftOut], int]:
    """Return the examples, at most `limit`, the rows that make none, and how many end with an answer that is not read."""
    examples: list[Example] = []
    answered = 0
    left_out: dict[str, LeftOut] = {}
    for row in rows:
        made = maker.example(row)
        if isinstance(made, Example):
            examples.append(made)
            answered += maker.drops_answer(row)
        else:
            before = left_out.get(made, LeftOut(made, 0, row.place))
            left_out[made] = replace(before, count=before.count + 1)
        if limit is not None and len(examples) >= limit:
            break
    return examples, list(left_out.values()), answered


def _matches(row: Row, where: Mapping[str, Any]) -> bool:
    """Return whether the row has these values; a text, as every cell of a CSV file is, may spell the value."""
    return all(
        row.values.get(name) == value or row.values.get(name) == value_text(value, name)
        for name, value in where.items()
    )


def _refuse_missing(path: str, needed: Iterable[str], where: Iterable[str], seen: Mapping[str, None]) -> None:
    """Raise ValueError for a column that no row has."""
    for name, purpose in [*((name, "") for name in needed), *((name, " to choose rows by") for name in where)]:
        if seen and name not in seen:
            raise ValueError(f"{path}: no column {name!r}{purpose}; the columns are {', '.join(map(str, seen))}.")


def _no_example(path: str, choice: RowChoice, left_out: list[LeftOut]) -> str:
    asked = f" after skip with where {dict(choice.where)}" if choice.where else ""
    why = "; ".join(map(str, left_out)) or f"no row is there{asked}"
    prompts = (
        " Set response: null if these are prompts alone, which sources answer (data.responses)." if left_out else ""
    )
    return f"{path} (split {choice.split}, skip {choice.skip}) gives no example: {why}.{prompts}"
