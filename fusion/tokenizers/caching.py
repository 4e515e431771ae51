"""What is computed from a tokenizer is kept as long as the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


def cached_per_tokenizer(compute: Callable[[PreTrainedTokenizerBase], T]) -> Callable[[PreTrainedTokenizerBase], T]:
    """Decorate `compute` to run once for each tokenizer object: do not add tokens to a tokenizer after it was used here."""
    cache: WeakKeyDictionary[PreTrainedTokenizerBase, T] = WeakKeyDictionary()

    @wraps(compute)
    def cached(tokenizer: PreTrainedTokenizerBase) -> T:
        if tokenizer not in cache:
            cache[tokenizer] = compute(tokenizer)
        return cache[tokenizer]

    return cached
