"""What it takes to let sources answer the training prompts, at most: that every answer becomes as long as it may."""

from __future__ import annotations

from dataclasses import replace

from fusion.plan import memory
from fusion.plan.facts import Architecture
from fusion.plan.memory import Bytes, Memory
from fusion.plan.work import Counts


def answering(texts: Counts, copies: int, samples: int, longest: int) -> Counts:
    """Of a source that writes so many samples of `longest` tokens to each prompt, which `texts` holds `copies` times."""
    prompts = texts.examples // copies
    prompt = (texts.tokens - texts.rows) / texts.examples
    return _counts(prompts, prompt, samples, longest)


def reading(texts: Counts, copies: int, samples: int, longest: int, others: int) -> Counts:
    """Of a source that reads all that the others wrote, each text with its prompt."""
    prompt = (texts.tokens - texts.rows) / texts.examples
    return _counts(texts.examples // copies * samples * others, prompt, 1, longest)


def writer(size: Architecture, tokens: int, width: int, chunk: Bytes) -> Memory:
    """Of a process that writes answers of so many tokens at once, prompts included: all keys and values are kept."""
    rank = memory.extraction(size, tokens, width, chunk)
    return replace(rank, activations=rank.activations + tokens * width * 2 * size.keys * size.layers)


def _counts(examples: int, prompt: float, samples: int, longest: int) -> Counts:
    whole = round(prompt + longest)
    tokens, rows = round(examples * (prompt + samples * longest)), examples * samples * longest
    return Counts(examples, tokens, examples * samples * whole**2, rows, whole)
