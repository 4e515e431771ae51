"""How many tokens a model reads at once, from its configuration alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

KNOWN_NAMES = ("max_position_embeddings", "max_target_positions")
"""What configurations of transformers call it; those with a name of their own map it to the first."""
NAMES = (
    *(*KNOWN_NAMES, "n_positions", "n_ctx", "max_seq_len", "max_seq_length"),
    *("max_sequence_length", "seq_length", "seq_len", "model_max_length", "context_length"),
)
"""What configurations call it that come with their own code, the commonest first."""
STRETCHED = {"linear", "dynamic", "yarn"}
"""Kinds of RoPE scaling whose factor may not be in `max_position_embeddings` yet: Qwen's and the first ones of Llama."""


class ContextLength(NamedTuple):
    """A number of tokens, and the key of config.json that says it."""

    tokens: int
    key: str


def context_length(config: Any) -> ContextLength | None:
    """Return the longest text that a model reads; None where no length ends it: ALiBi, recurrent models.

    A sliding window is no such limit: it says how far back one token looks. RoPE scaling may read further than
    `max_position_embeddings`, by its factor; where that number has the factor in it already, this is too generous.
    """
    text = config.get_text_config()
    if _has_alibi(text):
        return None
    own_code = not type(text).__module__.startswith(("transformers.", "fusion."))
    for name in NAMES if own_code else KNOWN_NAMES:  # Bloom's keep a seq_length, and no length ends it
        tokens = getattr(text, name, None)
        if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0:  # XLNet says -1 for none
            key = text.attribute_map.get(name, name)
            return max([ContextLength(tokens, key), *_scaled(text, tokens)])
    return None


def _has_alibi(text: Any) -> bool:
    attention = getattr(text, "attn_config", None)
    nested = attention.get("alibi") if isinstance(attention, Mapping) else getattr(attention, "alibi", False)
    return bool(nested or getattr(text, "alibi", False))


def _scaled(text: Any, tokens: int) -> Iterator[ContextLength]:
    given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    for rope in [
        given,
        *(inner for inner in given.values() if isinstance(inner, Mapping)),
    ]:  # one for each kind of layer
        factor = rope.get("factor")
        if rope.get("rope_type", rope.get("type")) in STRETCHED and isinstance(factor, int | float):
            original = rope.get("original_max_position_embeddings") or tokens
            yield ContextLength(int(factor * original), "rope_scaling")
