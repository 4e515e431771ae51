"""Rows for alignment tests: right examples, prefixes and tokens, and log-probabilities of no meaning."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fusion.core.rows import LogitRows
from fusion.data.encode import encode

NAN = float("nan")


def rows(examples: list[int], prefixes: list[int]) -> LogitRows:
    """Rows that know nothing but where they are."""
    number = len(examples)
    place = torch.arange(number, dtype=torch.float32)
    unknown = torch.full((number,), NAN)
    return LogitRows(
        logprobs=-place[:, None],
        ids=torch.zeros(number, 1, dtype=torch.long),
        gold=-place,
        mean=unknown,
        std=unknown,
        prefix=torch.tensor(prefixes, dtype=torch.long),
        example=torch.tensor(examples, dtype=torch.long),
    )


def rows_of_texts(tokenizer, texts: Mapping[int, str], **settings) -> LogitRows:
    """The rows that a model with this tokenizer has on these responses, in the order of the mapping."""
    prompt = [{"role": "user", "content": "Go on."}]
    encoded = {example: encode(tokenizer, prompt, text, **settings) for example, text in texts.items()}
    examples = [example for example, e in encoded.items() for _ in range(e.num_rows)]
    return rows(examples, [prefix for e in encoded.values() for prefix in e.prefix])
