"""What each stage of the pipeline does for one model: what made it, whether it is done, and the doing."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fusion import corpus, ranks
from fusion.cache import Cache, Writer, fill, full_key
from fusion.config import plain_fine_tuning
from fusion.corpus import Example
from fusion.encode import Message, Template
from fusion.helping import Batch, batches
from fusion.job import BATCH, Job
from fusion.made import fingerprint, finish, finished, made, refuse_other, write_json
from fusion.merge.stream import merge
from fusion.models import ModelRef, load_model, vocabulary
from fusion.needs import lacking
from fusion.objectives import AnyObjective, SpelledObjective
from fusion.progress import bar, console, counter, training_bar
from fusion.ranks import device
from fusion.sources import Source, Wanted
from fusion.store import alone, kept
from fusion.train import (
    ACCUMULATED,
    BASELINE,
    SIZE,
    Collator,
    Recipe,
    Reference,
    owned,
    pairwise,
    step_size,
    student,
    train,
)  # fmt: skip
from fusion.vocabulary import vocabulary_map, words
from fusion_eval import heldout
from fusion_eval.results import Result

MERGED = "pairwise/merged"
HELPING_SAMPLE = 2000
"""Examples of a domain that *is this source helping?* looks at."""


def cache_writer(job: Job, name: str, folder: Path | None = None) -> Writer:
    """The cache of one model, claimed for all that makes its rows; in the run's own `folder` if not said."""
    extract, model = job.config.extract, job.models[name]
    key = {
        "model": job.fingerprints[name],
        "template": model.template,
        "max_length": job.config.data.max_length,
        "top_k": 1 if name == "pivot" else extract.top_k,
        "dtype": extract.dtype,
    }
    if extract.sampling is not None and name != "pivot":
        key |= {"top_k": extract.sampling.draws, "sampling": extract.sampling.model_dump()}
    key["backend"] = job.backend(name).identity()
    if ahead := job.ahead(name):
        key["look_ahead"] = _prompts(job, ahead)
    if extract.hidden and name != "pivot":  # else left out: the key of caches made before there was a choice
        key["hidden"] = True
    size = vocabulary(job.tokenizers[name])
    whole = full_key(key, sorted(set(job.ids)), extract.codec, extract.shard, size)
    folder = folder or kept(job.config, "cache", name, whole)
    return Writer(folder, key, job.ids, extract.shard, extract.codec, vocabulary=size)


def _prompts(job: Job, ahead: Mapping[str, Sequence[Message]]) -> str:
    """What both are: the prompts that the pivot reads, and those that are read ahead instead."""
    ordinary = {example.id: example.messages for example in job.read if example.id in ahead}
    return fingerprint({id: [ordinary[id], messages] for id, messages in ahead.items()})


def open_source(job: Job, name: str) -> Source:
    """A model made ready to give the rows that `cache_writer` keeps."""
    extract, size = job.config.extract, vocabulary(job.tokenizers[name])
    k = 1 if name == "pivot" else size if extract.top_k == "all" else min(extract.top_k, size)
    wanted = Wanted(
        job.models[name].ref, job.tokenizers[name], k, extract.dtype, device(), extract.batch_tokens, extract.compile,
        sampling=None if name == "pivot" else extract.sampling,
        hidden=extract.hidden and name != "pivot",
    )  # fmt: skip
    return job.backend(name).open(wanted)


def extract_one(job: Job, name: str, writer: Writer) -> Cache:
    """Write the missing shards of one model, together with whatever other processes are at it."""
    texts = dict(zip(job.ids, job.encoded(name), strict=True))
    shards = {number: [texts[id] for id in writer.examples(number)] for number in writer.missing()}
    sizes = {number: sum(len(text.input_ids) for text in shard) for number, shard in shards.items()}
    source = open_source(job, name)
    with bar(f"rows of {name}", sum(sizes.values())) as advance:
        cache = fill(writer, lambda number: source.rows(shards[number], advance), lambda number: advance(sizes[number]))
    del source
    _free()
    return cache


def refuse_unknown(job: Job, caches: dict[str, Cache]) -> None:
    """Raise ValueError where objectives or weighting read what a source's rows do not hold, before anything is trained."""
    sources = {name: cache.known for name, cache in caches.items() if name != "pivot"}
    transforms = {source.name: source.transforms for source in job.config.sources}
    if missing := lacking(job.config.objectives, job.config.weighting, sources, transforms):
        raise ValueError("\n".join(missing))
    for source in job.config.sources:
        weights = job.models[source.name].ref if source.backend.weights else None
        owned.check(job.config.objectives, weights, vocabulary(job.tokenizers[source.name]), caches.get(source.name))


def helping_batches(job: Job, caches: dict[str, Cache]) -> Iterator[Batch]:
    """Rows of all models, some examples at a time; of each domain no more than a sample, and that is said."""
    chosen: dict[str, list[Example]] = {}
    for example in sorted(
        {example.id: example for example in job.train}.values(), key=lambda e: e.id
    ):  # by hash: at random
        chosen.setdefault(example.domain, []).append(example)
    if any(len(examples) > HELPING_SAMPLE for examples in chosen.values()):
        console.print(f"  measured on {HELPING_SAMPLE:,} examples, chosen at random, of each domain that has more")
    domains = list(dict.fromkeys(example.domain for example in job.train))
    examples = [example for domain in domains for example in chosen[domain][:HELPING_SAMPLE]]
    return batches(caches, examples, BATCH)


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
    _free()


def _other_answers(job: Job, objectives: Sequence[AnyObjective]) -> list[str | None] | None:
    """Of each example that is learned from, where an objective looks at them."""
    if not any(objective.reads_other_answers for objective in objectives):
        return None
    others = corpus.other_answers(job.train)
    return [others[n] for n in job.learned_from]


def refuse_lone_answers(job: Job) -> None:
    """Raise ValueError where an objective looks at other answers to a prompt and no prompt of the training data has two."""
    for number, objective in enumerate(job.config.objectives):
        if objective.weight and objective.reads_other_answers and not any(corpus.other_answers(job.train)):
            raise ValueError(
                f"objectives[{number}] ({objective.kind}) with other_answers compares answers to one prompt, and each of "
                f"the {len(job.train)} training examples has a prompt of its own. Add data with the same prompts and other "
                "responses, such as ones with a chain of thought, or set other_answers to false."
            )


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
    record = job.record()
    return {"versions": record["versions"], "seed": job.config.seed}


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
