"""Rows of JSON lines and of JSON files, with numbers and texts as they are written there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from fusion.data.reading.row import Number, Row
from fusion.data.reading.streams import read_lines, read_text

_CONVERSATIONS = ("messages", "conversations", "conversation")


def read_json_lines(file: Path) -> Iterator[Row]:
    """Yield a row for each line that is not empty. Raises ValueError, with file, line and column, for what is no JSON object.

    A file that is one JSON list or object over several lines is read as `read_json` does.
    """
    lines = read_lines(file)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    if first[1].lstrip().startswith("[") or first[1].strip() == "{":
        yield from read_json(file)
    else:
        yield from _json_lines(file, chain([first], lines))


def read_json(file: Path) -> Iterator[Row]:
    """Yield the objects of a list, of the one list of objects in an object ({"data": [...]}), or of JSON lines.

    Raises ValueError, with file, line and column, for anything else.
    """
    text = read_text(file)
    if not text.strip():
        return
    try:
        value = _loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and _is_json(text.lstrip().split("\n", 1)[0]):
            yield from _json_lines(file, enumerate(text.split("\n"), 1))
            return
        raise ValueError(_explain(error, str(file))) from error
    except _TwiceError as error:
        raise ValueError(f"{file}: {error}") from error
    for number, row in enumerate(_objects(value, file), 1):
        if not isinstance(row, dict):
            raise ValueError(
                f"{file}, row {number}: it holds {_kind(row)}, and each row should be an object with columns."
            )
        yield Row(row, str(file), number)


def _json_lines(file: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        value = _parse(line, f"{file}, line {number}")
        if not isinstance(value, dict):
            raise ValueError(
                f"{file}, line {number}: it holds {_kind(value)}, and each line should be an object with columns, such as "
                '{"prompt": "...", "response": "..."}.'
            )
        yield Row(value, str(file), number, "line")


def _objects(value: Any, file: Path) -> Sequence[Any]:
    """Return the rows of a parsed file."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds {_kind(value)}; it should hold a list of objects.")
    lists = [key for key, each in value.items() if _is_rows(each) and key not in _CONVERSATIONS]
    if len(lists) > 1:
        raise ValueError(f"{file} has lists of objects under {', '.join(lists)}; keep one of them, or a file for each.")
    if lists:
        return value[lists[0]]
    if value and (_all(value, dict) or _all(value, list)) and not any(key in value for key in _CONVERSATIONS):
        raise ValueError(f"{file} holds columns, as pandas writes them; write a list of rows (orient='records').")
    return [value]


def _all(value: Mapping[str, Any], kind: type) -> bool:
    return all(isinstance(each, kind) for each in value.values())


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _is_json(text: str) -> bool:
    try:
        _loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _parse(line: str, place: str) -> Any:
    try:
        return _loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(_explain(error, place)) from error
    except _TwiceError as error:
        raise ValueError(f"{place}: {error}") from error


class _TwiceError(ValueError):
    """A key that stands twice in one object."""


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Number, object_pairs_hook=_object)
    except RecursionError:
        raise json.JSONDecodeError("Nested too deeply", text, 0) from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError | _TwiceError):
            raise
        raise json.JSONDecodeError("A number has more digits than Python reads", text, 0) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _TwiceError(f"the key {twice!r} stands twice in one object; keep one of them.")
    return found


def _explain(error: json.JSONDecodeError, place: str) -> str:
    """Return what is wrong with a JSON text, with its column, and what to do."""
    before = error.doc[: error.pos].rstrip()
    comma = re.match(r",\s*([\]}])", error.doc[len(before) - 1 :]) if before.endswith(",") else None
    at = error.pos if comma is None else len(before) - 1
    line, column = error.doc.count("\n", 0, at) + 1, at - error.doc.rfind("\n", 0, at)
    where = f"{place}, column {column}" if ", line " in place else f"{place}, line {line}, column {column}"
    rest = error.doc[error.pos :].strip()
    if error.msg == "Extra data" and rest.startswith(","):
        return f"{where}: a comma stands behind the object. In JSON lines each line is whole in itself: remove it."
    if not rest:
        return f"{where}: the text is cut off here. Complete it, or remove it."
    if error.msg.startswith("Unterminated string"):
        return f"{where}: a text begins here and does not end. Close its quotes; it may be cut off."
    if comma:
        return f"{where}: a comma stands before {comma[1]}, and JSON allows none there. Remove it."
    if rest[0] == "'" or rest.startswith(("None", "True", "False")):
        return (
            f"{where}: it is written as Python writes it, {rest[:20]!r}. Write JSON: double quotes, null, true, false."
        )
    return f"{where}: it is not JSON ({error.msg}) at {rest[:20]!r}. Mend it, or remove it."


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null", dict: "an object"}
    return names.get(type(value), "a number")
