"""The stage in which the pivot is trained: what made a training, whether it is done, and the doing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.alignment.tokenizer_pair import vocabulary_map, words
from fusion.cache import Cache
from fusion.config import plain_fine_tuning
from fusion.data import datasets
from fusion.objectives import AnyObjective, SpelledObjective
from fusion.runtime import distributed
from fusion.runtime.artifacts import fingerprint, finish, finished
from fusion.runtime.console import console, training_bar
from fusion.stages.context import Job
from fusion.training import (
    ACCUMULATED,
    SIZE,
    Collator,
    Recipe,
    Reference,
    quantization_aware,
    step_size,
    train,
)


def reference(job: Job, name: str, cache: Cache) -> Reference:
    """A source as training sees it. Raises ValueError for a damaged cache."""
    cache.verify()
    templates = job.models[name].template, job.config.pivot.template
    mapped = vocabulary_map(job.config.vocabulary_map, job.tokenizers[name], job.tokenizers["pivot"], templates)
    spelled = any(isinstance(objective, SpelledObjective) for objective in job.config.objectives)
    dictionary = words(job.tokenizers[name], job.tokenizers["pivot"], templates) if spelled else None
    hidden = any("hidden" in objective.needs for objective in job.config.objectives)
    weights = job.models[name].ref if job.backend(name).weights else None
    return Reference(
        name, cache, mapped, getattr(job.models[name], "transforms", ()), words=dictionary, hidden=hidden, model=weights
    )


def train_one(job: Job, name: str, references: list[Reference], learn: list[str], pivot: Cache | None = None) -> bool:
    """Whether there was something to do. `pivot` holds what the pivot said before training."""
    objectives = job.config.objectives if references else plain_fine_tuning()
    key = _training_key(job, references, learn, objectives)
    with job.store.artifact_lock("train", key):
        with distributed.main_first():
            folder = job.store.artifact_folder("train", name, key)
            done = finished(folder, key, "fusion train")
        if not done:
            _train(job, name, references, learn, objectives, pivot, folder)
    return not done


def _train(
    job: Job,
    name: str,
    references: list[Reference],
    learn: list[str],
    objectives: Sequence[AnyObjective],
    pivot: Cache | None,
    folder: Path,
) -> None:
    config = job.config
    pad = job.tokenizers["pivot"].pad_token_id or 0
    before = pivot if references and job.weighting.reads_pivot else None
    encoded = job.encoded("pivot")
    collator = Collator(
        [job.train[n] for n in job.learned_from],
        [encoded[n] for n in job.learned_from],
        references,
        job.weighting,
        config.alignment,
        pad,
        learn,
        before,
        others=_other_answers(job, objectives),
    )
    tokenizer, ref = job.tokenizers["pivot"], config.pivot.ref
    recipe = Recipe(
        ref, tokenizer, collator, objectives, job.training, config.seed, config.dtype,
        chunk=config.head_chunk,
        budget=config.head_budget << 18,
        line=config.data.max_length if config.packing else None,
        engine=config.engine,
        adapter=config.adapter,
        student=config.student,
    )  # fmt: skip
    train(recipe, folder, training_bar(name))
    if config.student:
        console.print(_sizes(folder / "model"))
    if distributed.is_main():
        finish(folder)
    distributed.free_memory()


def _other_answers(job: Job, objectives: Sequence[AnyObjective]) -> list[str | None] | None:
    """Of each example that is learned from, where an objective looks at them."""
    if not any(objective.reads_other_answers for objective in objectives):
        return None
    others = datasets.other_answers(job.train)
    return [others[n] for n in job.learned_from]


def _training_key(
    job: Job, references: list[Reference], learn: list[str], objectives: Sequence[AnyObjective]
) -> dict[str, Any]:
    config = job.config
    return {
        "pivot": job.fingerprints["pivot"],
        "template": config.pivot.template,
        "examples": fingerprint({"ids": [job.ids[n] for n in job.learned_from], "max_length": config.data.max_length}),
        "sources": {reference.name: reference.cache.made for reference in references},
        "transforms": {r.name: [each.model_dump() for each in r.transforms] for r in references},
        "learn": learn,
        "objectives": [objective.identity() for objective in objectives],
        "fusion": [config.alignment, config.vocabulary_map, job.weighting.model_dump()] if references else [],
        "training": {name: value for name, value in job.training.items() if name not in (SIZE[0], ACCUMULATED[0])},
        "batch": step_size(job.training),
        "adapter": config.adapter.model_dump() if config.adapter else None,
        "student": config.student.model_dump() if config.student else None,
        "seed": config.seed,
        "dtype": config.dtype,
        "packing": config.packing,
    }


def _sizes(model: Path) -> str:
    found = quantization_aware.size(model)
    return (
        f"  {found['kind']}: {found['quantized']:,} of {found['parameters']:,} weights in {found['bytes'] / 1e6:,.1f} MB "
        f"instead of {found['bytes_before'] / 1e6:,.1f} MB"
    )
