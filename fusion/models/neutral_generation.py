"""Decoding without a model's own generation config, of which only the eos ids are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig

from fusion.models.notices import mention_once

SAME_TEXT = {"bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens", "use_cache"}
"""Settings of a generation config that end a text or make it fast; all others change which tokens are taken."""
NOT_SETTINGS = ("_", "transformers_", "cache_")
"""How entries of a generation config begin that decide neither."""


@contextmanager
def neutral_generation_config(model: Any) -> Iterator[None]:
    """Give the model a generation config with nothing but its eos ids while the block runs; what is left out is mentioned once.

    transformers takes every setting that a call leaves open from `model.generation_config`, also where the call passes a
    GenerationConfig: a repetition penalty there would make another text of greedy decoding.
    """
    own = model.generation_config
    if ignored := ignored_settings(own):
        shown = ", ".join(f"{name} {value}" for name, value in ignored.items())
        mention_once(f"{model.name_or_path}: these settings of its generation_config are not used: {shown}.")
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
    try:
        yield
    finally:
        model.generation_config = own


def ignored_settings(config: GenerationConfig) -> dict[str, Any]:
    """Return the settings that would change which tokens are taken, as far as they differ from transformers' defaults."""
    neutral = GenerationConfig().to_dict() | GenerationConfig._get_default_generation_params()
    given = {
        name: value for name, value in config.to_diff_dict().items() if name not in SAME_TEXT and value is not None
    }
    differing = {
        name: value for name, value in given.items() if value != neutral.get(name) and (value or neutral.get(name))
    }
    return {name: value for name, value in differing.items() if not name.startswith(NOT_SETTINGS)}
