"""The story: from a configuration to one fused model with the evidence beside it. Start reading here.

    extract    each model reads every training example once; its rows go to cache/<model>
    helping    what each source knows of each domain, against the pivot: printed before anything is trained
    train      the pivot on the text alone (the baseline), then on the text and its sources (unified, pairwise)
    merge      pairwise models become one
    fuse       the chosen model becomes fused/, an ordinary Hugging Face folder
    evaluate   pivot, sources, baseline and fused models on the held-out examples
    report     a table, report.html, and the model card of fused/

Every stage skips what is done, goes on with what is half done, and refuses what was made from something else.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fusion import configfile
from fusion.cache import Cache, Writer
from fusion.config import Config, plain_fine_tuning
from fusion.encode import Template
from fusion.head import Head
from fusion.helping import helping
from fusion.job import Job
from fusion.made import fingerprint, finish, finished, made, refuse_other, write_json
from fusion.merge.stream import merge
from fusion.models import ModelRef, load_model, vocabulary
from fusion.objectives import AnyObjective
from fusion.plan import plan
from fusion.progress import bar, console, training_bar
from fusion.report.card import model_card
from fusion.report.page import write_report
from fusion.report.table import helping_table, table
from fusion.sources import TransformersSource
from fusion.tables import plan_table
from fusion.train import BASELINE, Collator, Recipe, Reference, pairwise, train, trainings
from fusion.vocabulary import vocabulary_map
from fusion_eval import heldout
from fusion_eval.results import Result

STAGES = ("extract", "train", "merge", "evaluate", "report")
MERGED = "pairwise/merged"


def run(config: Config, until: str = "report") -> Path:
    """Run every stage up to `until`, after saying what it will take; the run's folder. Safe to stop and to call again."""
    job = Job(config)
    if not job.record():
        console.print(plan_table(plan(job)))
        config.folder.mkdir(parents=True, exist_ok=True)
        (config.folder / "config.yaml").write_text(configfile.dump(config))
    job.describe()
    caches = extract(job)
    show_helping(job, caches)
    for stage in (train_all, merge_pairwise, evaluate, report)[: STAGES.index(until)]:
        stage(job, caches)
    (config.folder / "config.yaml").write_text(configfile.dump(config))
    return config.folder


def extract(job: Job) -> dict[str, Cache]:
    """Rows of every model on every training example, by model. The pivot's tell what it knows before training."""
    caches = {}
    for name in job.models:
        with job.stage(f"extract {name}") as note:
            writer = _writer(job, name)
            note["skipped"] = writer.complete
            caches[name] = Cache(writer.folder) if writer.complete else _extract(job, name, writer)
    return caches


def show_helping(job: Job, caches: dict[str, Cache]) -> None:
    """Print and keep the table *is this source helping?*"""
    examples = list({example.id: example for example in job.train}.values())
    rows = {name: cache.rows([example.id for example in examples]) for name, cache in caches.items()}
    texts = {i: example.response.encode() for i, example in enumerate(examples)}
    pivot = rows.pop("pivot")
    domains = [example.domain for example in examples]
    found = helping(pivot, rows, domains, texts, job.config.alignment, job.config.weighting)
    job.keep_helping(found)
    console.print(helping_table(job.record()["helping"]))


def train_all(job: Job, caches: dict[str, Cache]) -> None:
    """The baseline and every strategy, each from the same pivot, on the same examples, steps and seed."""
    references = [_reference(job, name, cache) for name, cache in caches.items() if name != "pivot"]
    names = [source.name for source in job.config.sources]
    for name, learn in trainings(job.config.strategies, job.config.baseline, names).items():
        with job.stage(f"train {name}") as note:
            note["skipped"] = not _train(job, name, references if learn else [], learn)


def merge_pairwise(job: Job, _caches: dict[str, Cache]) -> None:
    """Merge the pairwise models, if there are any, and put the chosen model into fused/."""
    if "pairwise" in job.config.strategies:
        with job.stage("merge") as note:
            note["skipped"] = not _merge(job)
    with job.stage("fuse") as note:
        note["skipped"] = not _fuse(job)


def evaluate(job: Job, _caches: dict[str, Cache]) -> None:
    """Every model of the run on the held-out examples, each result in eval/<model>/heldout.json."""
    how = heldout.Settings(
        exact_match=tuple(job.config.evaluation.exact_match),
        max_new_tokens=job.config.evaluation.max_new_tokens,
        batch_tokens=job.config.evaluation.batch_tokens,
        dtype=job.config.extract.dtype,
        device=_device(),
    )
    for name, where in _candidates(job).items():
        with job.stage(f"evaluate {name}") as note:
            note["skipped"] = not _evaluate(job, name, where, how)


def report(job: Job, _caches: dict[str, Cache]) -> None:
    """Print the table, write report.html and the model card."""
    with job.stage("report"):
        fused = job.config.folder / "fused"
        (fused / "README.md").write_text(model_card(job.config.folder))
        page = write_report(job.config.folder)
    console.print(table(results(job), baseline=BASELINE if job.config.baseline else None))
    console.print(f"Fused model: [bold]{fused}[/]   report: [bold]{page}[/]")


def results(job: Job) -> list[Result]:
    """Results of all models that were evaluated, in the order of the table."""
    files = [job.config.folder / "eval" / name / "heldout.json" for name in _candidates(job)]
    return [Result.load(file) for file in files if file.exists()]


def _writer(job: Job, name: str) -> Writer:
    extract, model = job.config.extract, job.models[name]
    key = {
        "model": job.fingerprints[name],
        "template": model.template,
        "max_length": job.config.data.max_length,
        "top_k": 1 if name == "pivot" else extract.top_k,
        "dtype": extract.dtype,
    }
    return Writer(job.config.folder / "cache" / name, key, job.ids, extract.shard, extract.values)


def _extract(job: Job, name: str, writer: Writer) -> Cache:
    texts = dict(zip(job.ids, job.encoded(name), strict=True))
    missing = writer.missing()
    model = load_model(job.models[name].ref, job.config.extract.dtype, _device())
    head = Head.of(model, vocabulary(job.tokenizers[name]))
    head.check(model)
    k = head.vocabulary if writer.key["top_k"] == "all" else min(writer.key["top_k"], head.vocabulary)
    source = TransformersSource(model, head, k, job.config.extract.batch_tokens)
    shards = {number: [texts[id] for id in writer.examples(number)] for number in missing}
    with bar(f"rows of {name}", sum(len(text.input_ids) for shard in shards.values() for text in shard)) as advance:
        for number, shard in shards.items():
            writer.write(number, source.rows(shard, advance))
    del model, head, source
    _free()
    return writer.finish()


def _reference(job: Job, name: str, cache: Cache) -> Reference:
    cache.verify()
    templates = job.models[name].template, job.config.pivot.template
    mapped = vocabulary_map(job.config.vocabulary_map, job.tokenizers[name], job.tokenizers["pivot"], templates)
    return Reference(name, cache, mapped)


def _train(job: Job, name: str, references: list[Reference], learn: list[str]) -> bool:
    """Whether there was something to do."""
    config, folder = job.config, job.config.folder / "train" / name
    objectives = config.objectives if references else plain_fine_tuning()
    if finished(folder, _training_key(job, references, learn, objectives), "fusion train"):
        return False
    pad = job.tokenizers["pivot"].pad_token_id or 0
    collator = Collator(job.train, job.encoded("pivot"), references, config.weighting, config.alignment, pad, learn)
    tokenizer, ref = job.tokenizers["pivot"], config.pivot.ref
    recipe = Recipe(ref, tokenizer, collator, objectives, config.training, config.seed, config.dtype, config.head_chunk)
    train(recipe, folder, training_bar(name))
    finish(folder)
    _free()
    return True


def _training_key(
    job: Job, references: list[Reference], learn: list[str], objectives: Sequence[AnyObjective]
) -> dict[str, Any]:
    config = job.config
    return {
        "pivot": job.fingerprints["pivot"],
        "template": config.pivot.template,
        "examples": fingerprint({"ids": job.ids, "max_length": config.data.max_length}),
        "sources": {reference.name: reference.cache.made for reference in references},
        "learn": learn,
        "objectives": [objective.model_dump() for objective in objectives],
        "fusion": [config.alignment, config.vocabulary_map, config.weighting.model_dump()] if references else [],
        "training": config.training,
        "seed": config.seed,
        "dtype": config.dtype,
    }


def _merge(job: Job) -> bool:
    folder = job.config.folder / "train" / MERGED
    parts = [job.config.folder / "train" / pairwise(source.name) for source in job.config.sources]
    key = {"method": job.config.merge.model_dump(), "models": [made(part) for part in parts]}
    if finished(folder, key, "fusion merge"):
        return False
    base = load_model(job.config.pivot.ref, job.config.dtype)  # as training began: same type, same names of tensors
    base.save_pretrained(folder / "base")
    job.tokenizers["pivot"].save_pretrained(folder / "base")
    merge(folder / "base", [part / "model" for part in parts], job.config.merge, folder / "model")
    finish(folder)
    return True


def _fuse(job: Job) -> bool:
    chosen = job.config.folder / "train" / (MERGED if job.config.chosen == "pairwise" else "unified")
    folder = job.config.folder / "fused"
    lineage = {"from": job.config.chosen, "made": made(chosen), "models": job.fingerprints}
    if (folder / "fusion.json").exists() and json.loads((folder / "fusion.json").read_text()) == lineage:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(chosen / "model", folder, ignore=shutil.ignore_patterns("training_args.bin", "merge.json"))
    write_json(folder / "fusion.json", lineage)
    return True


def _candidates(job: Job) -> dict[str, tuple[ModelRef, Template, str]]:
    """All models of the run in the order of the table: where each is, its template, and what it was made from."""
    found: dict[str, tuple[ModelRef, Template, str]] = {
        name: (model.ref, model.template, job.fingerprints[name]) for name, model in job.models.items()
    }
    trained = [BASELINE] if job.config.baseline else []
    for name in [*trained, *job.config.strategies]:
        folder = job.config.folder / "train" / (MERGED if name == "pairwise" else name)
        found[name] = (ModelRef(str(folder / "model")), job.config.pivot.template, made(folder))
    return found


def _evaluate(job: Job, name: str, where: tuple[ModelRef, Template, str], how: heldout.Settings) -> bool:
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


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
