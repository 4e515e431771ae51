"""A look at a run before it costs anything: models and vocabularies, what is cached, and how the tokenizers meet."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from fusion import steps
from fusion.align import Audit, align, audit, coverage
from fusion.batch import pad
from fusion.cache import Cache
from fusion.corpus import unique
from fusion.job import Job
from fusion.models import load_config
from fusion.rescaling import Rescaling, rescaling
from fusion.train import Collator
from fusion.vocabulary import vocabulary_map
from fusion.weighting import Sum


@dataclass(frozen=True)
class Overview:
    """One model of a run."""

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
        kind = load_config(model.ref).model_type
        found.append(Overview(name, kind, size, "chat" if has_chat else "plain", exact, mapped, _cached(job, name)))
    return found


def audit_all(job: Job) -> dict[str, Audit]:
    """The alignment audit of each source on the training examples: from tokenizers alone, before any GPU hour."""
    examples = list(unique(job.train))
    place = {id: i for i, id in reversed(list(enumerate(job.ids)))}
    texts = {i: example.response.encode() for i, example in enumerate(examples)}
    domains = {i: example.domain for i, example in enumerate(examples)}
    rows = {name: pad([job.encoded(name)[place[e.id]] for e in examples], "cpu")[2] for name in job.models}
    pivot = rows.pop("pivot")
    return {
        name: audit(pivot, theirs, align(job.config.alignment, pivot, theirs, texts), texts, domains)
        for name, theirs in rows.items()
    }


def rescaling_all(job: Job, share: float, sample: int = 2000) -> dict[str, list[Rescaling]]:
    """How each source rescales the training examples, the first `sample` of them, against the pivot before training.

    Raises ValueError where a cache is not there yet.
    """
    pivot = Cache(job.config.folder / "cache" / "pivot")
    names = [name for name in job.models if name != "pivot"]
    references = [steps.reference(job, name, Cache(job.config.folder / "cache" / name)) for name in names]
    collator = Collator(job.train, job.encoded("pivot"), references, Sum(), job.config.alignment)
    theirs: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    mine: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    domains: dict[str, list[str]] = {name: [] for name in names}
    count = min(sample, len(job.train))
    for start in range(0, count, 64):
        numbers = range(start, min(start + 64, count))
        gold = pivot.rows([job.ids[n] for n in numbers]).gold
        for name, source in collator(numbers)["targets"].sources.items():
            theirs[name].append(source.mapped.gold)
            mine[name].append(gold[source.at])
            domains[name] += [job.train[numbers[e]].domain for e in source.mapped.example.tolist()]
    return {n: rescaling(torch.cat(theirs[n]), torch.cat(mine[n]), domains[n], share) for n in names}


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
