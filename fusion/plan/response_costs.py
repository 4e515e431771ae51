"""What it takes at most to let models answer prompts, and read answers: every answer becomes as long as it may."""

from __future__ import annotations

from dataclasses import replace

from fusion.plan import memory
from fusion.plan.architecture import Architecture
from fusion.plan.flops import Counts
from fusion.plan.memory import Bytes, Memory


def generation_counts(texts: Counts, prompts: int, samples: int, longest: int) -> Counts:
    """Counts of a model that writes samples of `longest` tokens to each of so many prompts, as long as those of `texts`."""
    return _counts(texts, prompts, samples, longest)


def reading_counts(texts: Counts, answers: int, longest: int) -> Counts:
    """Counts of a model that reads so many answers of `longest` tokens, each with a prompt as long as those of `texts`."""
    return _counts(texts, answers, 1, longest)


def generation_memory(size: Architecture, tokens: int, width: int, chunk: Bytes) -> Memory:
    """Memory of a process that writes answers of so many tokens at once, prompts included: the KV cache of all layers."""
    memory_estimate = memory.extraction(size, tokens, width, chunk)
    return replace(
        memory_estimate, activations=memory_estimate.activations + tokens * width * 2 * size.key_size * size.layers
    )


def _counts(texts: Counts, examples: int, samples: int, longest: int) -> Counts:
    """Prompts are as long as those of `texts` on average, and as much of them is read once for all."""
    shared = texts.shared_tokens / texts.examples
    prompt = (texts.tokens - texts.rows) / texts.examples + shared
    whole = round(prompt + longest)
    tokens = round(examples * (prompt - shared + samples * longest))
    squares, saved = examples * samples * whole**2, round(examples * samples * shared * whole)
    return Counts(
        examples, tokens, squares - saved, examples * samples * longest, whole, round(examples * shared), saved
    )
