"""The base of everything a user may set: frozen, and strict about names."""

import difflib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from fusion.core.renamed_keys import name_here, new_name
from fusion.core.secrets import refuse_secrets


class Settings(BaseModel):
    """A group of settings. Unknown keys are errors, values are checked, and nothing changes after reading.

    No number may be infinite or NaN, true and false are no numbers, and no secret may be among them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False,
        hide_input_in_errors=True,
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _hold_no_secret(cls, values: Any) -> Any:
        if isinstance(values, dict):  # of the outermost group first, with all that is in it
            refuse_secrets(values)
        return values

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        given = values.items() if isinstance(values, dict) else ()
        wrong = [name for name, value in given if isinstance(value, bool) and name in cls._numbers()]
        if wrong:
            raise ValueError("; ".join(f"{name} must be a number, got {str(values[name]).lower()}" for name in wrong))
        return values

    @classmethod
    def _numbers(cls) -> set[str]:
        kinds = {name: get_args(field.annotation) or (field.annotation,) for name, field in cls.model_fields.items()}
        return {name for name, kind in kinds.items() if kind[0] in (int, float) and bool not in kind}


LISTED = 40
"""Names that are listed where none is close: as many as there are kinds of objectives."""


def suggest(key: str, allowed: set[str]) -> str:
    """Its new name for a key that was renamed or has another name elsewhere, `; did you mean ...?`, or what is allowed."""
    if other := name_here(key, allowed):  # first: who writes `student` today means the pivot
        return f"; it is called {other} here"
    if renamed := new_name(key, allowed):
        return f"; it is called {renamed} now"
    close = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; allowed are {', '.join(sorted(allowed))}" if 0 < len(allowed) <= LISTED else ""


def allowed_keys(settings: type[BaseModel], location: Sequence[str | int]) -> set[str]:
    """The keys that `settings` knows at a location, as pydantic gives it in a mistake; empty where it knows no such place."""
    schema = _schema(settings)
    *_, (_, node) = _walk(schema, location)
    return set(_resolved(node, schema).get("properties", {}))


def kinds(settings: type[BaseModel], location: Sequence[str | int]) -> set[str]:
    """The values of `kind` that are known at a location; empty where a group has none."""
    schema = _schema(settings)
    *_, (_, node) = _walk(schema, location)
    return set(_resolved(node, schema).get("discriminator", {}).get("mapping", {}))


def is_form(settings: type[BaseModel], location: Sequence[str | int]) -> bool:
    """Whether the last part of a location is what pydantic adds, the kind of a method or one of several types, and no key."""
    schema = _schema(settings)
    *_, (_, node) = _walk(schema, location[:-1])
    node = _resolved(node, schema)
    return location[-1] in node.get("discriminator", {}).get("mapping", {}) or location[-1] in _forms(node)


def place_of(settings: type[BaseModel], location: Sequence[str | int]) -> str:
    """The keys of a location, as pydantic gives it in a mistake, such as `models[0].weight`."""
    text = ""
    for depth, part in enumerate(location, 1):
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith("(") and not is_form(settings, location[:depth]):  # (forms of a number by tensor)
            text += f".{part}" if text else part
    return text


@functools.lru_cache(maxsize=32)
def _schema(settings: type[BaseModel]) -> dict[str, Any]:
    """The schema, which takes pydantic a while to write and is asked for again by each part of each mistake."""
    return settings.model_json_schema()


def _walk(schema: dict[str, Any], location: Sequence[str | int]) -> Iterator[tuple[str | int | None, dict[str, Any]]]:
    """Each part of a location and the schema of what is there, from the root on; an empty one where nothing is known."""
    node = schema
    yield None, node
    for part in location:
        node = _resolved(node, schema)
        if isinstance(part, int):
            node = node.get("items", {})
        elif "discriminator" in node:  # pydantic names the kind of a union as a part of the location
            node = {"$ref": node["discriminator"]["mapping"].get(part, "")}
        elif part in _forms(node):
            node = _forms(node)[part]
        else:
            others = node.get("additionalProperties", {})
            node = node.get("properties", {}).get(part, others if isinstance(others, dict) else {})
        yield part, node


def _forms(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schemas that a value may follow where several are allowed, by the names that pydantic gives them in a location."""
    named = {"boolean": "bool", "integer": "int", "number": "float", "string": "str"}
    options: list[dict[str, Any]] = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    return {
        named.get(str(option.get("type"))) or str(option.get("$ref")).rsplit("/", 1)[-1]: option for option in options
    }


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a node refers to; of one that may be null, the schema of its value."""
    options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    if len(options) == 1:
        node = options[0]
    return schema["$defs"].get(node["$ref"].rsplit("/", 1)[-1], {}) if "$ref" in node else node
