"""The names, types and defaults of transformers' TrainingArguments, without the seconds that importing it takes.

`training_arguments.json` holds them for one version of transformers (`write_table` writes it again). With any other version
they come from the class itself.
"""

from __future__ import annotations

import enum
import functools
import json
import operator
import types
import typing
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).with_suffix(".json")
_KINDS: dict[str, Any] = {
    **{kind.__name__: kind for kind in (str, int, float, bool, dict, list)},
    **{str(kind): kind for kind in (dict[str, Any], dict[str, bool], list[str], typing.Literal[False])},
    "None": None,
}
"""Types by what the table calls them; choices (enumerations) are in the table itself."""


class Argument(NamedTuple):
    """One of the arguments."""

    kind: Any
    """Its type, as in the class."""
    default: Any


def training_arguments() -> dict[str, Argument]:
    """Return the arguments by name, of the transformers that is installed."""
    from transformers import __version__

    table = _table()
    return (
        _from_class()
        if table["transformers"] != __version__
        else {name: _argument(name) for name in table["arguments"]}
    )


def _argument(name: str) -> Argument:
    table = _table()
    names, default = table["arguments"][name]
    if unknown := [each for each in names if each not in _KINDS and each not in table["choices"]]:
        raise ValueError(f"{TABLE.name}: no type is called {', '.join(unknown)}.")
    kinds = [_KINDS[each] if each in _KINDS else _choices(each) for each in names]
    return Argument(functools.reduce(operator.or_, kinds), default)


@functools.cache
def _choices(name: str) -> Any:
    return enum.Enum(name, {value: value for value in _table()["choices"][name]})


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text())


def _from_class() -> dict[str, Argument]:
    from dataclasses import MISSING, fields

    from transformers import TrainingArguments

    return {
        field.name: Argument(field.type, field.default if field.default_factory is MISSING else field.default_factory())
        for field in fields(TrainingArguments)
        if field.init
    }


def describe_class() -> dict[str, Any]:
    """Return what the table should hold for the installed transformers."""
    from transformers import __version__

    arguments, choices = {}, {}
    for name, argument in _from_class().items():
        union = typing.get_origin(argument.kind) in (typing.Union, types.UnionType)
        kinds = typing.get_args(argument.kind) if union else (argument.kind,)
        names = {kind: _kind_name(kind) for kind in kinds}
        choices |= {names[kind]: [member.value for member in kind] for kind in kinds if _is_choice(kind)}
        arguments[name] = [list(names.values()), argument.default]
    return {"transformers": __version__, "choices": choices, "arguments": arguments}


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _kind_name(kind: Any) -> str:
    """Return what the table calls a type; a class of transformers' own is given as keys and values."""
    if kind is type(None):
        return "None"
    name = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    return name if name in _KINDS or _is_choice(kind) else "list[str]" if name.startswith("list") else "dict"


def write_table() -> None:
    """Write the table for the installed transformers, one argument a line."""
    described = describe_class()
    parts = [f'"transformers": "{described["transformers"]}"']
    for part in ("choices", "arguments"):
        lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in described[part].items())
        parts.append(f'"{part}": {{\n' + ",\n".join(lines) + "\n}")
    TABLE.write_text("{" + ",\n".join(parts) + "}\n")
