"""Texts made from the columns of a row: "{question} Options: {choices[0]}"."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from fusion.data.reading.row import Row, value_text


def columns_of(form: str) -> list[str]:
    """Return the columns that a text in braces names. Raises ValueError for braces that do not close or name nothing."""
    try:
        fields = [field for _text, field, _spec, _conversion in string.Formatter().parse(form) if field is not None]
    except ValueError as error:
        raise ValueError(f"{form!r} has a brace without its pair ({error}); write {{{{ and }}}} for braces") from error
    names = [field.split("[")[0].split(".")[0] for field in fields]
    if any(not name or name[0] in "\"'" for name in names):
        raise ValueError(f"{form!r} has braces without a column; write {{{{ and }}}} for braces")
    return names


def fill(form: str, row: Row, *, also: Mapping[str, Any] | None = None, lists: bool = False) -> str:
    """Return the text with the values of the row; a column that the row lacks is empty.

    `also` are further values by name. With `lists`, a list gives a line for each entry. Raises ValueError, with the row and
    the column, for a value without a text.
    """
    try:
        return _Filler(lists).vformat(form, (), _Values(row.values, also or {}))
    except (ValueError, LookupError, TypeError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        raise ValueError(f"{row.place}: {message}") from error


class _Values(dict[str, Any]):
    def __init__(self, *parts: Mapping[str, Any]):
        super().__init__()
        for part in parts:
            self.update(part)

    def __missing__(self, key: str) -> None:
        return None


class _Filler(string.Formatter):
    """Braces as Python writes them; dots and brackets both look into an object, and values are texts as in `value_text`."""

    def __init__(self, lists: bool):
        self.lists = lists

    @override
    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        first, *rest = field_name.replace("]", "").replace("[", ".").split(".")
        value = kwargs[first]
        for part in rest:
            value = _inside(value, part, field_name)
        return (field_name, value), first

    @override
    def convert_field(self, value: Any, conversion: str | None) -> Any:
        if conversion is not None:
            raise ValueError(f"{{{value[0]}!{conversion}}} is not understood; write {{{value[0]}}}.")
        return value

    @override
    def format_field(self, value: Any, format_spec: str) -> str:
        name, content = value
        if format_spec:
            try:
                return format("" if content is None else content, format_spec)
            except ValueError as error:
                raise ValueError(
                    f"{{{name}:{format_spec}}} formats {content!r:.60}: {error}. Write {{{{ and }}}} for braces that are text."
                ) from error
        if self.lists and isinstance(content, list):
            return "\n".join(value_text(each, name) for each in content)
        return value_text(content, name)


def _inside(value: Any, part: str, field: str) -> Any:
    """Return an entry of an object or a list."""
    if isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
        return value[int(part)]
    raise ValueError(f"{{{field}}} looks for {part!r} where {value!r:.60} stands, which has none.")
