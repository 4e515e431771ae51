"""Sizes of the architectures that come with the package, so that a plan with them imports no model of transformers (a second).

`known_sizes.json` holds what `architecture.measure` finds for them, by all that their configurations say, for one version of
transformers (`write_table` writes it again). With any other version, or another configuration, nothing is known.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import __version__

from fusion.runtime.artifacts import fingerprint

TABLE = Path(__file__).with_suffix(".json")
_SAYS_NOTHING = ("_name_or_path", "transformers_version", "dtype")


def known_sizes(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of an `Architecture`, or None where this configuration, as config.json has it, is not in the table."""
    table = _table()
    return table["sizes"].get(_key(config)) if table["transformers"] == __version__ else None


def write_table(measured: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """Write the table: configurations, each with the fields of its `Architecture`."""
    lines = (f'"{_key(config)}": {json.dumps(sizes)}' for config, sizes in measured)
    TABLE.write_text(f'{{"transformers": "{__version__}",\n"sizes": {{\n' + ",\n".join(dict.fromkeys(lines)) + "\n}}\n")
    _table.cache_clear()


def _key(config: Mapping[str, Any]) -> str:
    return fingerprint({name: value for name, value in config.items() if name not in _SAYS_NOTHING})


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text())
