"""One row of a data file, and the texts of its values."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """The values of one row by column, and where it stands."""

    values: Mapping[str, Any]
    file: str
    number: int
    """From 1."""
    unit: str = "row"
    """What the file counts: `line`s of JSON lines, else `row`s."""

    @property
    def place(self) -> str:
        """Where the row stands, for messages."""
        return f"{self.file}, {self.unit} {self.number}"


class Number(float):
    """A number that remembers how its file writes it."""

    text: str

    def __new__(cls, text: str) -> Number:
        """Take the text of a JSON number."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def value_text(value: Any, name: str) -> str:
    """Return the text of one value: text as it is, nothing for null, everything else as JSON writes it.

    `name` says what the value is, for messages. Raises ValueError for what has no text: bytes, NaN, infinity, half of a
    surrogate pair.
    """
    if value is None:
        return ""
    text = value if isinstance(value, str) else _written(value, name)
    if not text.isascii():
        _check_unicode(text, name)
    return text


def json_value(value: Any, name: str) -> Any:
    """Return a value as JSON has it: text, number, true, false, null, lists and objects of them; dates and decimals as text.

    Raises ValueError as `value_text`.
    """
    value_text(value, name)
    return value if isinstance(value, str) else json.loads(_as_json(value, name))


def _written(value: Any, name: str) -> str:
    if isinstance(value, Number) and math.isfinite(value):
        return value.text
    if isinstance(value, datetime.date | datetime.time | decimal.Decimal):
        return str(_plain(value))
    return _as_json(value, name)


def _as_json(value: Any, name: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except TypeError as error:
        raise ValueError(
            f"{name} holds {error}, which is no text. Take another column, or write it as text."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{name} is {value!r}, and JSON has no such number. Write it as text ({str(value)!r} in quotes), or leave the row "
            "out."
        ) from error


def _plain(value: Any) -> Any:
    """Return what JSON can write of a type that it does not know. Raises TypeError that names the type."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError(type(value).__name__)


def _check_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(text[error.start]):04x}"
        raise ValueError(
            f"{name} holds {code} at character {error.start + 1}, half of a surrogate pair, which is no character. Write the "
            "character itself, or leave the row out."
        ) from error
