"""What it takes at most to let models answer prompts, and read answers: every answer becomes as long as it may."""

from __future__ import annotations

from dataclasses import replace

from fusion.plan import memory
from fusion.plan.architecture import Architecture
from fusion.plan.flops import Counts
from fusion.plan.memory import Bytes, Memory


def generation_counts(texts: Counts, prompts: int, samples: int, longest: int) -> Counts:
    """Counts of a model that writes samples of `longest` tokens to each of so many prompts, as long as those of `texts`."""
    return _counts(prompts, _prompt(texts), samples, longest)


def reading_counts(texts: Counts, answers: int, longest: int) -> Counts:
    """Counts of a model that reads so many answers of `longest` tokens, each with a prompt as long as those of `texts`."""
    return _counts(answers, _prompt(texts), 1, longest)


def generation_memory(size: Architecture, tokens: int, width: int, chunk: Bytes) -> Memory:
    """Memory of a process that writes answers of so many tokens at once, prompts included: the KV cache of all layers."""
    memory_estimate = memory.extraction(size, tokens, width, chunk)
    return replace(
        memory_estimate, activations=memory_estimate.activations + tokens * width * 2 * size.key_size * size.layers
    )


def _prompt(texts: Counts) -> float:
    """Tokens of a prompt, on average."""
    return (texts.tokens - texts.rows) / texts.examples


def _counts(examples: int, prompt: float, samples: int, longest: int) -> Counts:
    whole = round(prompt + longest)
    tokens, rows = round(examples * (prompt + samples * longest)), examples * samples * longest
    return Counts(examples, tokens, examples * samples * whole**2, rows, whole)
