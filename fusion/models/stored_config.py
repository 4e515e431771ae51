"""A config.json as it is written: what it says of a model, without the seconds that importing the architecture takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from fusion.models.loading import ModelRef, load_config

LENGTHS = {"max_position_embeddings": "max_position_embeddings", "n_positions": "max_position_embeddings"}
"""Keys of config.json by which a model says how many tokens it reads, and what transformers calls them."""


class StoredConfig:
    """The values of a config.json as attributes, under the names that transformers gives them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Take the values as they were read."""
        self.values = dict(values)
        self.attribute_map = {ours: key for key, ours in LENGTHS.items() if key in values}

    def __getattr__(self, name: str) -> Any:
        """Return a value. Raises AttributeError where config.json has none, which leaves it to the architecture."""
        values: dict[str, Any] = self.__dict__["values"]
        key = self.__dict__["attribute_map"].get(name, name)
        if key not in values:
            raise AttributeError(name)
        return values[key]

    def get_text_config(self) -> StoredConfig:
        """Return the part that describes the language model."""
        inner = self.values.get("text_config")
        return StoredConfig(inner) if isinstance(inner, dict) else self


def read_config(ref: ModelRef) -> Any:
    """Return what config.json says, where that is enough to know the limits of a model; else the loaded configuration.

    Raises ValueError as `load_config`.
    """
    stored = _stored(ref)
    return load_config(ref) if stored is None or not _says_enough(stored) else StoredConfig(stored)


def _stored(ref: ModelRef) -> dict[str, Any] | None:
    path = ref.local_path
    if path is not None:
        file = path / "config.json" if path.is_dir() else None
    else:
        found = cached_file(
            ref.path,
            "config.json",
            revision=ref.revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        file = None if found is None else Path(found)
    try:
        read = json.loads(file.read_bytes()) if file is not None else None
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def _says_enough(stored: Mapping[str, Any]) -> bool:
    """Whether length and vocabulary stand there, and nothing of the architecture's own could mean another length."""
    inner = stored.get("text_config")
    text = inner if isinstance(inner, dict) else stored
    return "auto_map" not in stored and "vocab_size" in text and bool(LENGTHS.keys() & text.keys())
