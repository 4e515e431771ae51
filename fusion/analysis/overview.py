"""A look at a run before it costs anything: models and vocabularies, what is cached, and how the tokenizers meet."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from fusion.alignment import AlignmentAudit, align, audit, coverage
from fusion.alignment.tokenizer_pair import vocabulary_map
from fusion.data.batching import pad_texts
from fusion.data.datasets import unique_examples
from fusion.models.loading import load_config
from fusion.stages.context import Job


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


def overview(job: Job) -> list[Overview]:
    """The pivot and every source. No weights are read."""
    found = []
    for name, model in job.models.items():
        tokenizer = job.tokenizers[name]
        is_pivot = name == "pivot"
        exact = None if is_pivot else _coverage(job, name, "exact")
        mapped = None if is_pivot else _coverage(job, name, job.config.vocabulary_map)
        has_chat = model.template != "plain" and bool(tokenizer.chat_template)
        size = max(tokenizer.get_vocab().values()) + 1
        kind = load_config(model.ref).model_type if job.backend(name).has_weights else job.backend(name).kind
        found.append(Overview(name, kind, size, "chat" if has_chat else "plain", exact, mapped, _cached(job, name)))
    return found


def audit_by_source(job: Job) -> dict[str, AlignmentAudit]:
    """The alignment audit of each source on the training examples: from tokenizers alone, before any GPU hour."""
    examples = list(unique_examples(job.train))
    place = {id: i for i, id in reversed(list(enumerate(job.ids)))}
    texts = {i: example.response.encode() for i, example in enumerate(examples)}
    domains = {i: example.domain for i, example in enumerate(examples)}
    rows = {name: pad_texts([job.encoded(name)[place[e.id]] for e in examples], "cpu")[2] for name in job.models}
    pivot = rows.pop("pivot")
    return {
        name: audit(pivot, source_rows, align(job.config.alignment, pivot, source_rows, texts), texts, domains)
        for name, source_rows in rows.items()
    }


def _coverage(job: Job, name: str, kind: str) -> float:
    templates = job.models[name].template, job.config.pivot.template
    mapped: torch.Tensor = vocabulary_map(kind, job.tokenizers[name], job.tokenizers["pivot"], templates)
    return coverage(mapped)


def _cached(job: Job, name: str) -> str:
    folder = job.config.folder / "cache" / name
    if not folder.exists():
        return "nothing yet"
    if not (folder / "manifest.json").exists():
        return f"{len(list(folder.glob('shard-*.safetensors')))} shards, not finished"
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = sum(sum(shard["rows"]) for shard in manifest["shards"])
    size = sum(file.stat().st_size for file in folder.glob("shard-*.safetensors"))
    return f"{rows:,} rows, {size / max(1, rows):.0f} bytes each"
