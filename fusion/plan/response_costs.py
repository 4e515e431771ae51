"""What it takes at most to let sources answer the training prompts: every answer becomes as long as it may."""

from __future__ import annotations

from dataclasses import replace

from fusion.plan import memory
from fusion.plan.architecture import Architecture
from fusion.plan.flops import Counts
from fusion.plan.memory import Bytes, Memory


def generation_counts(texts: Counts, copies: int, samples: int, longest: int) -> Counts:
    """Counts of a source that writes so many samples of `longest` tokens to each prompt, which `texts` holds `copies` times."""
    prompts = texts.examples // copies
    prompt = (texts.tokens - texts.rows) / texts.examples
    return _counts(prompts, prompt, samples, longest)


def scoring_counts(texts: Counts, copies: int, samples: int, longest: int, others: int) -> Counts:
    """Counts of a source that scores all that the others wrote, each text with its prompt."""
    prompt = (texts.tokens - texts.rows) / texts.examples
    return _counts(texts.examples // copies * samples * others, prompt, 1, longest)


def generation_memory(size: Architecture, tokens: int, width: int, chunk: Bytes) -> Memory:
    """Memory of a process that writes answers of so many tokens at once, prompts included: the KV cache of all layers."""
    memory_estimate = memory.extraction(size, tokens, width, chunk)
    return replace(
        memory_estimate, activations=memory_estimate.activations + tokens * width * 2 * size.key_size * size.layers
    )


def _counts(examples: int, prompt: float, samples: int, longest: int) -> Counts:
    whole = round(prompt + longest)
    tokens, rows = round(examples * (prompt + samples * longest)), examples * samples * longest
    return Counts(examples, tokens, examples * samples * whole**2, rows, whole)
