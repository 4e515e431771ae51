"""YAML as configurations, studies, suites and merge recipes read it: 1e-4 is a number, and no key stands twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, and a key that stands twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping. Raises ConstructorError, with the line, for a key that stands in it twice."""
        seen: dict[Any, yaml.Node] = {}
        for key_node, _ in node.value:
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


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str) -> Any:
    """Return what a text holds. Raises yaml.YAMLError for one that is not YAML."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the keys and values of a file. Raises ValueError, with the file, where it holds anything else."""
    try:
        raw = parse_yaml(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{file} should hold keys and values, it holds {type(raw).__name__}.")
    return raw
