"""A look at a run before it costs anything: models and vocabularies, what is cached, and how the tokenizers meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fusion.alignment import AlignmentAudit, align, audit, coverage
from fusion.alignment.tokenizer_pair import vocabulary_map
from fusion.cache import Cache
from fusion.data.batching import pad_texts
from fusion.data.example import unique_examples
from fusion.models.loading import load_config
from fusion.stages.context import RunContext
from fusion.stages.prompts import prompt_format


@dataclass(frozen=True)
class Overview:
    """Type, vocabulary and cache of one model of a run."""

    name: str
    model_type: str
    vocabulary: int
    template: str
    exact: float | None
    """Share of its tokens that the pivot has too, byte for byte; None for the pivot itself."""
    mapped: float | None
    """Share of its tokens that the configured vocabulary map carries over."""
    cached: str
    """What its cache holds."""


def overview(context: RunContext) -> list[Overview]:
    """The pivot and every source. No weights are read."""
    found = []
    for name, model in context.models.items():
        tokenizer = context.tokenizers[name]
        is_pivot = name == "pivot"
        exact = None if is_pivot else _coverage(context, name, "exact")
        mapped = None if is_pivot else _coverage(context, name, context.config.vocabulary_map)
        has_chat = model.template != "plain" and bool(tokenizer.chat_template)
        size = max(tokenizer.get_vocab().values()) + 1
        kind = load_config(model.ref).model_type if context.backend(name).has_weights else context.backend(name).kind
        found.append(Overview(name, kind, size, "chat" if has_chat else "plain", exact, mapped, _cached(context, name)))
    return found


def audit_by_source(context: RunContext) -> dict[str, AlignmentAudit]:
    """The alignment audit of each source on the training examples: from tokenizers alone, before any GPU hour."""
    examples = list(unique_examples(context.train_examples))
    place = {id: i for i, id in reversed(list(enumerate(context.ids)))}
    texts = {i: example.response.encode() for i, example in enumerate(examples)}
    domains = {i: example.domain for i, example in enumerate(examples)}
    rows = {
        name: pad_texts([context.encoded(name)[place[e.id]] for e in examples], "cpu")[2] for name in context.models
    }
    pivot = rows.pop("pivot")
    return {
        name: audit(pivot, source_rows, align(context.config.alignment, pivot, source_rows, texts), texts, domains)
        for name, source_rows in rows.items()
    }


def _coverage(context: RunContext, name: str, kind: str) -> float:
    formats = prompt_format(context, name), prompt_format(context, "pivot")
    mapped: torch.Tensor = vocabulary_map(kind, context.tokenizers[name], context.tokenizers["pivot"], formats)
    return coverage(mapped)


def _cached(context: RunContext, name: str) -> str:
    folder = context.config.folder / "cache" / name
    if not folder.exists():
        return "nothing yet" if name in context.extracted_models else "not read"
    if not (folder / "manifest.json").exists():
        return f"{len(list(folder.glob('shard-*.safetensors')))} shards, not finished"
    rows = len(Cache(folder))
    size = sum(file.stat().st_size for file in folder.glob("shard-*.safetensors"))
    return f"{rows:,} rows, {size / max(1, rows):.0f} bytes each"
