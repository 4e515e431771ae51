"""What transformers' classes say of an architecture: a config.json with every default, tied heads, tensors that are not loaded.

Only where it is asked is transformers imported, and never code that lies beside a model.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYER_TYPE_KEYS = {"max_window_layers", "use_sliding_window", "sliding_window_pattern"}
"""Keys from which the configuration class makes `layer_types` and `sliding_window`, which are compared themselves."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class ReadConfig:
    """A configuration as its class reads it, defaults included."""

    values: Config
    unread: frozenset[str]
    """Paths of keys that neither the class nor the code of the model knows."""


def as_architecture(config: Config) -> ReadConfig | None:
    """Read a configuration by transformers' class for its `model_type`; None where there is no class or it refuses."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        return None
    try:
        read = CONFIG_MAPPING[config["model_type"]].from_dict(
            copy.deepcopy(dict(config))
        )  # it changes what it is given
    except (StrictDataclassError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        return None
    return ReadConfig(_complete(json.loads(read.to_json_string(use_diff=False))), frozenset(_unread_keys(read)))


def _unread_keys(config: Any, prefix: str = "") -> list[str]:
    """Paths of the keys of a configuration that its class does not declare and the code of its model does not name."""
    from transformers import PreTrainedConfig

    declared, source = getattr(type(config), "__dataclass_fields__", {}), _model_code(type(config))
    unread = []
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            unread += _unread_keys(value, f"{prefix}{key}.")
        elif key not in declared and source and not re.search(rf"\b{re.escape(key)}\b", source):
            unread.append(prefix + key)
    return unread


def _model_code(config_class: type) -> str:
    """The code of the model that a configuration class of transformers belongs to; empty where there is no such file."""
    import transformers

    *folders, module = config_class.__module__.split(".")[1:]
    file = Path(transformers.__file__).parent.joinpath(*folders, module.replace("configuration_", "modeling_") + ".py")
    return file.read_text() if file.is_file() else ""


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what models compute where these keys are absent, in every nested part."""
    completed = {key: _complete(value) if isinstance(value, dict) else value for key, value in config.items()}
    heads, width = completed.get("num_attention_heads"), completed.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int) and heads > 0:
        defaults = {"head_dim": width // heads, "num_key_value_heads": heads}
        completed |= {key: value for key, value in defaults.items() if completed.get(key) is None}
    # what was read into other keys and is kept beside them
    repeated = {"type"} if "rope_type" in completed else LAYER_TYPE_KEYS if completed.get("layer_types") else set()
    return {key: value for key, value in completed.items() if key not in repeated}


def ties_embeddings(config: Config) -> bool | None:
    """Whether embedding and head are one tensor, as config.json says, or else its class; None where neither is known."""
    text = config.get("text_config")
    stated = config.get("tie_word_embeddings", (text or {}).get("tie_word_embeddings"))
    if stated is not None or "auto_map" in config:
        return stated
    read = as_architecture(config)
    return None if read is None else read.values.get("tie_word_embeddings")


def unloaded_tensors(config: Config) -> re.Pattern[str] | None:
    """The names of tensors that the model of a config.json leaves out when it is loaded, and so is saved without.

    Such as the layers that predict further tokens, which whoever made the model stored beside it. None where there are none.
    """
    import transformers

    classes = [getattr(transformers, name, None) for name in config.get("architectures") or []]
    patterns = [
        pattern for each in classes for pattern in getattr(each, "_keys_to_ignore_on_load_unexpected", None) or []
    ]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
