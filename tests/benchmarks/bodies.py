"""Random models of real size, and rows as their sources would have left them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fusion.cache import Cache, CacheWriter
from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded
from fusion.data.example import Example

PIVOT = 49_152


def model_135m(vocabulary: int = PIVOT) -> Any:
    """A Llama of SmolLM2-135M's shape with random weights, and the vocabulary asked for."""
    torch.manual_seed(0)
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=True, **shape, **heads))


def texts(count: int, tokens: int, prompt: int, vocabulary: int = PIVOT) -> tuple[list[Example], list[Encoded]]:
    """Examples whose tokens are two bytes each, and their ids."""
    generator = torch.Generator().manual_seed(1)
    examples, encoded = [], []
    for i in range(count):
        ids = torch.randint(vocabulary, (tokens,), generator=generator).tolist()
        examples.append(Example(({"role": "user", "content": str(i)},), "ab" * (tokens - prompt), "text"))
        encoded.append(Encoded(ids, prompt, [2 * r for r in range(tokens - prompt)], False))
    return examples, encoded


def cache(
    folder: Path, examples: Sequence[Example], rows_each: int, vocabulary: int, k: int = 10, values: str = "packed"
) -> Cache:
    """A cache of random rows at every place where the pivot has one."""
    ids = [example.id for example in examples]
    writer = CacheWriter(folder, {"made": "for timing"}, ids, 64, values, vocabulary=vocabulary)
    for number in writer.missing():
        writer.write(number, random_rows(len(writer.examples(number)), rows_each, vocabulary, k))
    return writer.finalize()


def random_rows(examples: int, rows_each: int, vocabulary: int, k: int = 10) -> LogitRows:
    """Rows with plausible numbers, from nearly certain to nearly even."""
    generator = torch.Generator().manual_seed(vocabulary)
    count = examples * rows_each
    sharpness = torch.rand(count, 1, generator=generator) * 3
    gaps = torch.rand(count, k, generator=generator) * sharpness
    logprobs = (-gaps.cumsum(1)).log_softmax(-1) - 0.05
    ids = torch.randint(vocabulary, (count, k), generator=generator)
    place = torch.arange(count)
    gold, mean, std = logprobs[:, 3], torch.full((count,), -14.0), torch.full((count,), 2.5)
    return LogitRows(logprobs, ids, gold, mean, std, prefix=place % rows_each * 2, example=place // rows_each)
