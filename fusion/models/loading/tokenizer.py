"""Load tokenizers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig

from fusion.core.text_files import read_object
from fusion.models.loading.explain import load_or_explain
from fusion.models.loading.model_ref import ModelRef
from fusion.tokenizers import tokenizer_name


def load_tokenizer(ref: ModelRef) -> Any:
    """Load the tokenizer; its eos token becomes the padding token where it has none."""
    arguments = ref.from_pretrained_arguments()
    tokenizer = load_or_explain(
        ref, "tokenizer", lambda: AutoTokenizer.from_pretrained(**arguments, **_config_without_model(ref))
    )
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if not isinstance(longest := tokenizer.model_max_length, (int, float)):
        raise ValueError(
            f"The tokenizer of {ref.path}: model_max_length in tokenizer_config.json should be a number of tokens, got "
            f"{longest!r}."
        )
    return tokenizer


def _config_without_model(ref: ModelRef) -> dict[str, Any]:
    """The argument that spares AutoTokenizer the model's own configuration class, half a second of import.

    Of a folder that names its tokenizer's class, AutoTokenizer reads no more than the configuration's `model_type`.
    """
    folder = ref.local_path
    if folder is None or not all((folder / file).is_file() for file in ("config.json", "tokenizer_config.json")):
        return {}
    named, said = (read_object(folder / file) for file in ("tokenizer_config.json", "config.json"))
    if "auto_map" in named or "auto_map" in said or not (named.get("tokenizer_class") and said.get("model_type")):
        return {}
    return {"config": PreTrainedConfig.from_dict(said)}


def vocabulary_size(tokenizer: Any) -> int:
    """Return the highest token id plus one; an output layer may be padded beyond it."""
    return max(tokenizer.get_vocab().values()) + 1


def tokenizer_identity(tokenizer: Any) -> dict[str, str]:
    """Return the `name` of a tokenizer and a hash of its `vocabulary`: of which token each id is, however texts are split."""
    table = json.dumps(sorted(tokenizer.get_vocab().items()))
    return {"name": tokenizer_name(tokenizer), "vocabulary": hashlib.sha256(table.encode()).hexdigest()[:16]}
