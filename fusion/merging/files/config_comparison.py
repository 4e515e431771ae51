"""Whether two config.json let the same weights compute the same: all keys are compared, as their architecture reads them.

A key may be left to the architecture's default, have an older name, or stand in a nested part. So where two files differ, both
are read by transformers' configuration class, without remote code; only then is transformers imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.merging.architecture import Config, as_architecture

LENGTH_KEYS = {"max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length"}
"""How long a text may be: weights compute the same at positions that both read, unless rope is scaled by the length."""
TRAINING_KEY = re.compile(
    r"drop|jitter|aux_loss|z_loss|neftune|gradient_checkpointing|output_router_logits|_pdrop$|^init|^rescale_prenorm"
)
"""Keys that only a training reads."""
ROPE = re.compile(r"(?:^|\.)(?:rope_(?:theta|scaling|parameters)|partial_rotary_factor)\b")
"""Keys of rope, which versions of transformers write in different ways."""
BOOKKEEPING_KEYS = {
    "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "use_cache", "return_dict", "tokenizer_class",
    "output_attentions", "output_hidden_states", "problem_type", "id2label", "label2id", "num_labels", "finetuning_task",
    "task_specific_params", "pretraining_tp", "chunk_size_feed_forward", "prefix", "attn_implementation", "unsloth_fixed",
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id",
    "decoder_start_token_id", "tie_word_embeddings", "quantization_config",
}  # fmt: skip
"""Keys that say nothing of the function; architectures, dtypes, tied heads and few bits are compared by the tensors."""
SHAPE_KEYS = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "n_embd", "n_layer", "d_model"}
"""Keys of which another value means tensors of another shape or number: allowing it would not help."""
LONGEST_VALUE = 60
"""Characters of a value that a message shows."""


@dataclass(frozen=True)
class ConfigDifference:
    """A key that two configurations do not agree on; `key` is dotted where it is nested."""

    key: str
    base: Any
    model: Any
    matters: bool
    """Whether the same weights compute something else with it."""

    @property
    def name(self) -> str:
        """The key without the parts that it is nested in."""
        return self.key.rpartition(".")[2].partition("[")[0]

    def is_named_by(self, keys: frozenset[str]) -> bool:
        """Whether one of these is this key, its last part, or a part that it is nested in."""
        path = self.key.partition("[")[0]
        return path in keys or not keys.isdisjoint(path.split("."))

    def values(self) -> tuple[str, str]:
        """The model's value and the base's, short enough for a message."""
        shown = ["not stated" if value is None else repr(value) for value in (self.model, self.base)]
        first, second = (text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…" for text in shown)
        return first, second


def compare_configs(base: Config, model: Config) -> list[ConfigDifference]:
    """List the keys that differ between two config.json of one `model_type`, of lists the first entry, without bookkeeping."""
    if _flatten(base) == _flatten(model):
        return []
    first, second = as_architecture(base), as_architecture(model)
    if first is None or second is None:  # nothing here knows the defaults
        return _differences(base, model)
    if "auto_map" not in base or "auto_map" not in model:  # code beside one of them: transformers has saved the other
        return _differences(first.values, second.values, unread=first.unread | second.unread)
    read = {each.key for each in _differences(first.values, second.values)}
    # the code's own defaults are not known; how rope is written depends on the version of transformers that saved it
    return [each for each in _differences(base, model) if not ROPE.search(each.key) or any(map(ROPE.search, read))]


def code_difference(base: Path, model: Path) -> str | None:
    """The first Python file by which two folders with code of their own (`auto_map`) compute something else, or None.

    A file that only one of the folders has is no difference: it may be what only that one needs.
    """
    files = sorted(file.name for file in base.glob("*.py") if (model / file.name).is_file())
    return next((name for name in files if (base / name).read_bytes() != (model / name).read_bytes()), None)


def all_keys(config: Config) -> set[str]:
    """Every key of a configuration, nested ones too, by its own name and as its architecture calls it."""
    read = as_architecture(config)
    values = {**_flatten(config), **(_flatten(read.values) if read else {})}
    return set(config) | {part for path in values for part in (path, *path.partition("[")[0].split("."))}


def _differences(base: Config, model: Config, unread: frozenset[str] = frozenset()) -> list[ConfigDifference]:
    first, second = _flatten(base), _flatten(model)
    found: dict[str, ConfigDifference] = {}
    for path in [*second, *(path for path in first if path not in second)]:
        expected, actual = first.get(path), second.get(path)
        key = path.partition("[")[0]  # of a list one entry
        if key not in found and not _is_equal(expected, actual):
            matters = not _is_within(key, unread) and any(_changes_function(key, config) for config in (first, second))
            found[key] = ConfigDifference(path, expected, actual, matters)
    return list(found.values())


def _is_within(path: str, others: frozenset[str]) -> bool:
    """Whether a path, or a part that it is nested in, is one of the others."""
    parts = path.split(".")
    return any(".".join(parts[:length]) in others for length in range(1, len(parts) + 1))


def _changes_function(path: str, config: Config) -> bool:
    """Whether another value at this path changes what the same weights compute, as far as the name of the key tells."""
    name = path.rpartition(".")[2]
    if name in LENGTH_KEYS:
        return _scales_rope_by_length(config)
    return not TRAINING_KEY.search(name)


def _scales_rope_by_length(config: Config) -> bool:
    """Whether the frequencies of rope depend on the longest text: dynamic scaling, and others that leave the factor to it."""
    kinds = {path: kind for path, kind in config.items() if re.search(r"rope\w*\..*\b(rope_)?type$", path)}
    return any(
        kind == "dynamic"
        or (kind in ("yarn", "longrope", "su") and config.get(f"{path.rpartition('.')[0]}.factor") is None)
        for path, kind in kinds.items()
    )


def _flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """Every value by its path, such as `text_config.layer_types[3]`, without bookkeeping and private keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in BOOKKEEPING_KEYS or key.startswith("_"):
            continue
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat |= {f"{prefix}{key}[{index}]": entry for index, entry in enumerate(value)}
        else:
            flat[prefix + key] = value
    return flat


def _is_equal(first: Any, second: Any) -> bool:
    """Equal, for numbers in float32: some programs keep them so, and 1e-5 is 9.999999747378752e-06 there."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (first, second))
    return math.isclose(first, second, rel_tol=1e-7) if numbers else first == second
