"""One example of each domain in the tokens of every model, with what each expected."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fusion.alignment.overlay import Spell, overlay
from fusion.cache import Cache
from fusion.core.overlay import Overlay
from fusion.core.rows import LogitRows
from fusion.data.example import Example
from fusion.stages.context import RunContext
from fusion.stages.prompts import encode_example
from fusion.tokenizers import vocabulary_bytes

CANDIDATES = 20
"""Examples of a domain among which the one to show is chosen."""


def example_overlays(context: RunContext, caches: Mapping[str, Cache]) -> list[Overlay]:
    """One training example of each domain in the tokens of every model, with what each expected, as cached."""
    chosen = _one_of_each_domain(context.train_examples)
    spell = {name: token_display(tokenizer) for name, tokenizer in context.tokenizers.items()}
    return [
        overlay(
            example.domain,
            example.prompt,
            example.response,
            {name: _cached_rows(context, name, cache, example) for name, cache in caches.items()},
            spell,
            context.config.alignment,
        )
        for example in chosen
    ]


def _one_of_each_domain(examples: Sequence[Example]) -> list[Example]:
    """Of the first `CANDIDATES` of each domain the one with the longest response: there is more to see."""
    by_domain: dict[str, list[Example]] = {}
    for example in examples:
        by_domain.setdefault(example.domain, []).append(example)
    return [max(found[:CANDIDATES], key=lambda example: len(example.response)) for found in by_domain.values()]


def _cached_rows(context: RunContext, name: str, cache: Cache, example: Example) -> LogitRows:
    """Rows of one example from the cache, with the tokens that follow, which it leaves out."""
    messages = context.look_ahead_prompts(name).get(example.id, example.messages)
    text = encode_example(context, name, example, messages, context.config.data.max_length)
    return dataclasses.replace(cache.rows([example.id]), token=torch.tensor(text.input_ids[text.start :]))


def token_display(tokenizer: Any) -> Spell:
    """A function from a token id to what people read: the text it stands for, else its name."""
    spelled = vocabulary_bytes(tokenizer)

    def spell(id: int) -> str:
        text = spelled[id] if id < len(spelled) else None
        return (
            tokenizer.convert_ids_to_tokens(id) or f"<{id}>" if text is None else text.decode(errors="backslashreplace")
        )

    return spell
