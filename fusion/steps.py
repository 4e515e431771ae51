"""What each stage of the pipeline does for one model: what made it, whether it is done, and the doing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fusion import corpus, ranks
from fusion.cache import Cache
from fusion.config import plain_fine_tuning
from fusion.encode import Template
from fusion.job import Job
from fusion.made import fingerprint, finish, finished, made, refuse_other, write_json
from fusion.merge.stream import merge
from fusion.models import ModelRef, load_model
from fusion.objectives import AnyObjective, SpelledObjective
from fusion.progress import bar, console, counter, training_bar
from fusion.store import alone, kept
from fusion.train import (
    ACCUMULATED,
    BASELINE,
    SIZE,
    Collator,
    Recipe,
    Reference,
    pairwise,
    step_size,
    student,
    train,
)  # fmt: skip
from fusion.vocabulary import vocabulary_map, words
from fusion_eval import heldout
from fusion_eval.results import Result

MERGED = "pairwise/merged"


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
    with alone(job.config, "train", key):
        with ranks.main_first():
            folder = kept(job.config, "train", name, key)
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
    if ranks.is_main():
        finish(folder)
    ranks.free_memory()


def _other_answers(job: Job, objectives: Sequence[AnyObjective]) -> list[str | None] | None:
    """Of each example that is learned from, where an objective looks at them."""
    if not any(objective.reads_other_answers for objective in objectives):
        return None
    others = corpus.other_answers(job.train)
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
    found = student.size(model)
    return (
        f"  {found['kind']}: {found['quantized']:,} of {found['parameters']:,} weights in {found['bytes'] / 1e6:,.1f} MB "
        f"instead of {found['bytes_before'] / 1e6:,.1f} MB"
    )


def merge_all(job: Job) -> bool:
    """Merge all pairwise models; whether there was something to do."""
    folder = job.config.folder / "train" / MERGED
    parts = [job.config.folder / "train" / pairwise(source.name) for source in job.config.sources]
    key = {"method": job.config.merge.model_dump(), "models": [made(part) for part in parts]}
    if finished(folder, key, "fusion merge"):
        return False
    base = load_model(job.config.pivot.ref, job.config.dtype)  # as training began: same type, same names of tensors
    base.save_pretrained(folder / "base")
    job.tokenizers["pivot"].save_pretrained(folder / "base")
    with counter("merge") as progress:
        models = [part / "model" for part in parts]
        merge(folder / "base", models, job.config.merge, folder / "model", progress=progress)
    finish(folder)
    return True


def fuse_chosen(job: Job) -> bool:
    """Copy the chosen model to fused/, whole or not at all; whether there was something to do."""
    chosen = job.config.folder / "train" / (MERGED if job.config.chosen == "pairwise" else "unified")
    folder = job.config.folder / "fused"
    lineage = {"from": job.config.chosen, "made": made(chosen), "models": job.fingerprints}
    if (folder / "fusion.json").exists():
        refuse_other(folder, json.loads((folder / "fusion.json").read_text()), lineage, "fusion merge")
        return False
    aside = folder.with_name(".fused.part")
    for place in (aside, folder):  # what was cut off while it was written
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(
        chosen / "model", aside, ignore=shutil.ignore_patterns("training_args.bin", "merge.json", "recipe.yaml")
    )
    write_json(aside / "fusion.json", lineage)
    aside.replace(folder)
    return True


def candidates(job: Job) -> dict[str, tuple[ModelRef, Template, str]]:
    """All models of the run in the order of the table: where each is, its template, and what it was made from."""
    found: dict[str, tuple[ModelRef, Template, str]] = {
        name: (model.ref, model.template, job.fingerprints[name])
        for name, model in job.models.items()
        if job.config.evaluation.untouched and job.backend(name).weights
    }
    trained = [BASELINE] if job.config.baseline else []
    for name in [*trained, *job.config.strategies]:
        folder = job.config.folder / "train" / (MERGED if name == "pairwise" else name)
        found[name] = (ModelRef(str(folder / "model")), job.config.pivot.template, made(folder))
    return found


def evaluate_one(job: Job, name: str, where: tuple[ModelRef, Template, str], how: heldout.Settings) -> bool:
    """Put the held-out examples to one model; whether there was something to do."""
    ref, template, identity = where
    file = job.config.folder / "eval" / name / "heldout.json"
    ids = fingerprint({"ids": [example.id for example in job.heldout]})
    key = {"model": identity, "template": template, "examples": ids, **asdict(how)}
    if file.exists():
        refuse_other(file, Result.load(file).made["key"], key, "fusion evaluate")
        return False
    with bar(f"held-out, {name}", heldout.work(job.heldout, how)) as advance:
        items = heldout.score(ref, job.heldout, template, how, advance)
    Result(model=name, suite="heldout", path=ref.path, made={"key": key, **_provenance(job)}, items=items).save(file)
    return True


def _provenance(job: Job) -> dict[str, Any]:
    record = job.record.read()
    return {"versions": record["versions"], "seed": job.config.seed}
