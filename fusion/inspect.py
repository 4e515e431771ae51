"""A look at a run before it costs anything: models and vocabularies, what is cached, and how the tokenizers meet."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusion import steps
from fusion.align import Audit, align, audit, coverage
from fusion.batch import pad
from fusion.cache import Cache
from fusion.corpus import Example, unique
from fusion.encode import encode
from fusion.job import Job
from fusion.models import load_config
from fusion.overlay import Overlay, Spell, overlay
from fusion.rescaling import Rescaling, rescaling
from fusion.rows import LogitRows
from fusion.spelling import spellings
from fusion.train import Collator
from fusion.vocabulary import vocabulary_map
from fusion.weighting import Sum

AMONG = 20
"""Examples of a domain among which the one to show is looked for."""


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
        kind = load_config(model.ref).model_type if job.backend(name).weights else job.backend(name).kind
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


def overlays(job: Job, caches: Mapping[str, Cache]) -> list[Overlay]:
    """One training example of each domain in the tokens of every model, with what each expected, as cached."""
    shown = _one_of_each_domain(job.train)
    spell = {name: _spell(tokenizer) for name, tokenizer in job.tokenizers.items()}
    return [
        overlay(
            example.domain,
            example.prompt,
            example.response,
            {name: _cached_rows(job, name, cache, example) for name, cache in caches.items()},
            spell,
            job.config.alignment,
        )
        for example in shown
    ]


def _one_of_each_domain(examples: Sequence[Example]) -> list[Example]:
    """Of the first `AMONG` of each domain the one with the longest response: there is more to see."""
    by_domain: dict[str, list[Example]] = {}
    for example in examples:
        by_domain.setdefault(example.domain, []).append(example)
    return [max(found[:AMONG], key=lambda example: len(example.response)) for found in by_domain.values()]


def _cached_rows(job: Job, name: str, cache: Cache, example: Example) -> LogitRows:
    """Rows of one example from the cache, with the tokens that follow, which it leaves out."""
    template = example.template or job.models[name].template
    limit = job.config.data.max_length
    text = encode(job.tokenizers[name], example.messages, example.response, template=template, max_length=limit)
    return dataclasses.replace(cache.rows([example.id]), token=torch.tensor(text.input_ids[text.start :]))


def _spell(tokenizer: Any) -> Spell:
    spelled = spellings(tokenizer)

    def spell(id: int) -> str:
        text = spelled[id] if id < len(spelled) else None
        return (
            tokenizer.convert_ids_to_tokens(id) or f"<{id}>" if text is None else text.decode(errors="backslashreplace")
        )

    return spell


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
