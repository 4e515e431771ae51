"""The number of layers that a config.json states, whatever its architecture calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What architectures call the number of layers."""


def layer_count(config: Mapping[str, Any]) -> int | None:
    """Return the number of layers of the language model; None where config.json does not say."""
    text = config.get("text_config")
    for group in (config, text if isinstance(text, Mapping) else {}):
        for key in KEYS:
            if isinstance(count := group.get(key), int) and not isinstance(count, bool):
                return count
    return None
