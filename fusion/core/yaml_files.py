"""YAML as configurations, studies, suites and merge recipes read it: 1e-4 is a number, `on` a key, and no key stands twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from fusion.core.secrets import hide, hide_lines
from fusion.core.system_errors import naming

NO_TEXT = re.compile("[\x00\ud800-\udfff]")
"""What neither a name of a file nor a text in UTF-8 can hold: NUL, and halves of a character."""


BOOLEAN = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, the key `on` a text, and a key that stands twice a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping. Raises ConstructorError, with the line, for a key that stands in it twice."""
        seen: dict[Any, yaml.Node] = {}
        for key_node, _ in node.value:
            if key_node.tag == BOOLEAN and key_node.value.lower() not in ("true", "false"):
                key_node.tag = (
                    "tag:yaml.org,2002:str"  # `on: replay`: YAML 1.1 takes on, off, yes and no for truth values
                )
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                first = seen[key_node.value].start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key_node.value} stands twice, first in line {first}; leave one out",
                    key_node.start_mark,
                )
            seen[key_node.value] = key_node
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a value. Raises ConstructorError, with the line, for a date or number that is none, such as 2020-13-45."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, AttributeError, IndexError, OverflowError) as error:  # what PyYAML lets through
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} is no {node.tag.rpartition(':')[2]} ({error})", node.start_mark
            ) from error
        if isinstance(value, str) and not value.isprintable() and (found := NO_TEXT.search(value)):
            raise yaml.constructor.ConstructorError(
                None, None, f"a text holds {found[0]!r}, which no file can hold; take it out", node.start_mark
            )
        return value


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def is_file(place: Path) -> bool:
    """Return whether a file is there; a text that no file can be called, such as a long one, is none."""
    try:
        return place.is_file()
    except OSError:
        return False


def parse_yaml(text: str) -> Any:
    """Return what a text holds. Raises yaml.YAMLError for one that is not YAML, or that no setting can be."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested more deeply than any setting") from None


def parse_assignment(text: str, example: str) -> tuple[str, Any]:
    """Return name and value of `name=value`, as --set has it. Raises ValueError, with the `example`, for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {hide(text)}: write it as {example}.")
    try:
        return name, parse_yaml(value)
    except yaml.YAMLError as error:
        reason = " ".join(hide_lines(str(error)).split())
        raise ValueError(f"--set {hide(text)}: the value is not YAML ({reason}); put a text into quotes.") from error


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the keys and values of a file. Raises ValueError, with the file, where it holds anything else."""
    try:
        with naming(file):
            raw = parse_yaml(file.read_text(encoding="utf-8"))
    except ComposerError as error:
        if "single document" not in str(error.context):  # an anchor that is absent
            raise ValueError(f"{file} is not valid YAML: {error}") from error
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(
            f"{file} holds several documents; one ends at --- in line {line}: put each into a file of its own."
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {hide_lines(str(error))}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{file} should hold keys and values, it holds {type(raw).__name__}.")
    if odd := [key for key in raw if not isinstance(key, str)]:
        raise ValueError(f"{file}: the key {odd[0]!r} is no name; put it into quotes, or take it out.")
    return raw
