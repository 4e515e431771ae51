"""What is wrong with a configuration, in the words of its file: where, what is there, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from fusion.config import Config
from fusion.core.secrets import hide
from fusion.core.settings import allowed_keys, kinds, place_of, suggest

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""The pattern of names that folders can have."""
FEW = 6
"""Keys of a group that a message shows as examples."""
GROUP = ("model_type", "model_attributes_type", "dict_type")
"""Types of a mistake where a group of settings is wanted and something else is there."""


class ConfigError(ValueError):
    """What is wrong with a configuration: every mistake, one a line, with secrets masked."""

    def __init__(self, message: str):
        super().__init__(hide(message))


def explained(
    error: ValidationError,
    origin: str,
    settings: type[BaseModel] = Config,
    overridden: Mapping[str, str] | None = None,
) -> ConfigError:
    """Every mistake that was found in `settings`, one a line, behind `origin`, or what `overridden` has for its place."""
    mistakes = error.errors()
    meant = [mistake for mistake in mistakes if not _means_another_form(mistake, mistakes)]
    lines = [(place_of(settings, mistake["loc"]), _explain(mistake, settings)) for mistake in meant]
    return ConfigError("\n".join(f"{_from(place, line, overridden or {}) or origin}: {line}" for place, line in lines))


def _from(place: str, line: str, overridden: Mapping[str, str]) -> str | None:
    """Where the value came from that is wrong: one at its place, or one inside it that the message names."""
    for at, origin in overridden.items():
        named = at.startswith(f"{place}.") and re.search(rf"\b{re.escape(at.rpartition('.')[2])}\b", line)
        if place == at or place.startswith((f"{at}.", f"{at}[")) or named:
            return origin
    return None


def _means_another_form(mistake: Mapping[str, Any], mistakes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it says that a group is no plain value, where a group may stand too, whose own mistakes are among them."""
    place = mistake["loc"][:-1]
    return (
        isinstance(mistake.get("input"), dict)
        and any(len(other["loc"]) > len(mistake["loc"]) and other["loc"][: len(place)] == place for other in mistakes)
        and mistake["type"] in ("bool_type", "string_type", "int_type", "float_type", "literal_error")
    )


def _explain(mistake: Mapping[str, Any], settings: type[BaseModel]) -> str:
    place, kind, value = place_of(settings, mistake["loc"]), mistake["type"], mistake.get("input")
    if kind == "extra_forbidden":
        key, parent = mistake["loc"][-1], mistake["loc"][:-1]
        return f"unknown key {place}{suggest(str(key), allowed_keys(settings, parent))}"
    if kind == "missing":
        return f"{place} is missing"
    if kind == "union_tag_invalid":
        return f"{place}.kind: {_no_such_kind(mistake['ctx'])}"
    if kind == "union_tag_not_found":
        return (
            f"{place}: kind is missing, which says what it is, such as {{kind: ...}}; `fusion schema` lists the kinds"
        )
    if kind in GROUP:
        return f"{place} should be {_group(mistake, settings)}, got {value!r}"
    if kind == "list_type":
        return f"{place} should be a list{_list_of(mistake, settings)}, got {value!r}"
    if kind == "string_type" and isinstance(value, dict):
        quoted = "YAML takes braces for keys and values: put them in quotes, such as '\"{question}\"'"
        return f"{place}: {mistake['msg']}; {quoted}"
    message = _pattern(mistake) or mistake["msg"].removeprefix("Value error, ")
    shown = f", got {value!r}" if isinstance(value, (str, int, float, bool)) and repr(value) not in message else ""
    colon = "" if message.startswith("should be") else ":"
    return f"{place}{colon} {message}{shown}" if place else message


def _no_such_kind(told: Mapping[str, Any]) -> str:
    tag, known = told["tag"], set(re.findall(r"'(\w+)'", told["expected_tags"]))
    own = "; one of your own trains in fusion.FusionLoss and FusionMixin" if "cross_entropy" in known else ""
    return f"there is no {tag}{suggest(tag, known)}{own}"


def _group(mistake: Mapping[str, Any], settings: type[BaseModel]) -> str:
    """A group of settings as it is written: with what is there in its place, where that is plain."""
    value, known = mistake.get("input"), kinds(settings, mistake["loc"])
    if known:
        return f"a group of settings, {{kind: {value if value in known else '...'}}}"
    keys = allowed_keys(settings, mistake["loc"])
    if "path" in keys and isinstance(value, str):
        return f"a group of settings, {{path: {value}}}"
    some = ", ".join(sorted(keys)[:FEW]) + (", ..." if len(keys) > FEW else "")
    return f"a group of settings{f' ({some})' if some else ''}"


def _list_of(mistake: Mapping[str, Any], settings: type[BaseModel]) -> str:
    """`, such as [...]` with what is there as its entry, where that is plain."""
    value = mistake.get("input")
    if not isinstance(value, (str, int, float)):
        return ""
    return (
        f", such as [{{kind: {value}}}]" if value in kinds(settings, (*mistake["loc"], 0)) else f", such as [{value}]"
    )


def _pattern(mistake: Mapping[str, Any]) -> str | None:
    """What a text should look like that does not match its pattern; None for any other mistake."""
    pattern = mistake["ctx"]["pattern"] if mistake["type"] == "string_pattern_mismatch" else None
    if pattern == NAME:
        return "a name has letters, digits, dots, dashes and underscores, and begins with a letter or a digit"
    words = re.fullmatch(r"\^\(([\w|]+)\)\$", pattern or "")
    return f"should be {' or '.join(words[1].split('|'))}" if words else None
