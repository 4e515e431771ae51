"""The ids of many texts, through the tokenizer's own threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fusion.tokenizers.token_bytes import backend_tokenizer


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, split_special_tokens: bool | None = None
) -> list[list[int]]:
    """Return the ids of each text without special tokens around it; equal texts share a list, which is not to be changed.

    With `split_special_tokens` special tokens that a text spells are text; None leaves it to the tokenizer. The threads are
    those of `tokenizers`: TOKENIZERS_PARALLELISM=false turns them off, and so does a fork of a process that has used them.
    """
    if not texts:
        return []
    unique = list(dict.fromkeys(texts))
    settings: dict[str, Any] = {
        "add_special_tokens": False,
        "split_special_tokens": split_special_tokens,
        "verbose": False,
    }
    if getattr(type(tokenizer), "_encode_plus", None) is PreTrainedTokenizerFast._encode_plus:
        tokenizer("", **settings)  # sets up the backend: transformers does so with each call
        fast = backend_tokenizer(tokenizer).encode_batch_fast  # without offsets
        ids = [each.ids for each in fast(unique, add_special_tokens=False)]
    else:  # a tokenizer with code of its own
        ids = tokenizer(unique, return_attention_mask=False, **settings)["input_ids"]  # type: ignore[assignment]
    if len(unique) == len(texts):
        return ids
    number = {text: n for n, text in enumerate(unique)}
    return [ids[number[text]] for text in texts]
