"""Read once what all texts begin with, such as worked examples or a system prompt, instead of once for each text.

A prefix is read alone; its keys and values are then given to every text, which is read from there on. Numbers are those of
reading whole texts, up to rounding: a token never looks at what comes after it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.models.head.forward import run_to_head, unwrap_model

MIN_PREFIX = 32
"""A shorter prefix is read with each text: copying keys and values costs time as well."""
PER_TOKEN = {"DynamicLayer", "DynamicSlidingWindowLayer"}
"""Layers of transformers' caches that keep keys and values by token. Recurrent states can't be cut at a token."""


@dataclass(frozen=True)
class SharedPrefix:
    """The keys and values of the tokens that several texts begin with."""

    length: int
    """Tokens, P."""
    cache: Any
    """transformers' cache of the P tokens, of one text."""
    argument: str
    """What the model calls its cache."""

    def inputs(self, padding: Int[Tensor, " B"]) -> dict[str, Any]:
        """Return the model's arguments for texts that stand behind so much padding: a cache of P positions for each.

        The text of a row is its padding and its tokens, and the model is to read what comes after the first P of these.
        Where padding pushes the end of the prefix behind them, the model so reads that part again.
        """
        cache = copy.copy(self.cache)
        cache.layers = [_behind_padding(layer, padding) for layer in self.cache.layers]
        return {self.argument: cache, "use_cache": True}


def prefix_groups(
    model: Any, texts: Sequence[Sequence[int]], longest: Sequence[int]
) -> Iterator[tuple[list[int], SharedPrefix | None]]:
    """Yield the numbers of texts of token ids that begin alike, with what they share; last the others, with None.

    Of text n at most `longest[n]` tokens are shared. Texts of several domains may each begin with worked examples of their own.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, text in enumerate(texts):
        alike.setdefault(tuple(text[:MIN_PREFIX]), []).append(number)
    others: list[int] = []
    for numbers in alike.values():
        shared = read_shared_prefix(model, [texts[n] for n in numbers], min(longest[n] for n in numbers))
        if shared is None:
            others += numbers
        else:
            yield numbers, shared
    if others:
        yield sorted(others), None


def read_shared_prefix(model: Any, texts: Sequence[Sequence[int]], longest: int) -> SharedPrefix | None:
    """Read what all texts of token ids begin with, at most `longest` tokens of it.

    Returns None where that is nothing worth sharing: one text alone, fewer than `MIN_PREFIX` tokens, or a model whose memory of
    a text can't be cut at a token (Mamba) or is shorter than the prefix (a sliding window).
    """
    length = min(common_prefix(texts), longest)
    if len(texts) < 2 or length < MIN_PREFIX:
        return None
    ids = torch.tensor([list(texts[0][:length])], device=model.device)
    cache = run_to_head(model, input_ids=ids, use_cache=True).cache
    if any(type(layer).__name__ not in PER_TOKEN for layer in getattr(cache, "layers", [None])):
        return None
    if any(layer.keys.shape[-2] != length for layer in cache.layers):
        return None
    names = inspect.signature(unwrap_model(model).forward).parameters
    return SharedPrefix(length, cache, "cache" if "cache" in names else "past_key_values")


def common_prefix(texts: Sequence[Sequence[int]]) -> int:
    """Return how many ids all of the texts begin with."""
    ordered = sorted(map(tuple, texts))  # what the first and the last of these share, all do
    first, last = (ordered[0], ordered[-1]) if ordered else ((), ())
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _behind_padding(layer: Any, padding: Int[Tensor, " B"]) -> Any:
    """Return a layer of a cache whose one text stands in B rows, behind the padding of each; the model's mask hides that."""
    keys, values = (_shifted(states, padding) for states in (layer.keys, layer.values))
    moved = copy.copy(layer)
    moved.keys, moved.values = keys, values
    return moved


def _shifted(states: Float[Tensor, "1 H P D"], padding: Int[Tensor, " B"]) -> Float[Tensor, "B H P D"]:
    places = torch.arange(states.shape[-2], device=states.device) - padding[:, None]
    return states[0][:, places.clamp(min=0)].transpose(0, 1)
