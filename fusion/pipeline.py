"""The story: from a configuration to one fused model with the evidence beside it. Start reading here.

    fine-tune  sources learn the training data's style first, where they are to
    respond    sources answer the training prompts, where their responses are to be learned from
    extract    each model reads every training example once; its rows go to cache/<model>
    helping    what each source knows of each domain, against the pivot: printed before anything is trained
    train      the pivot on the text alone (the baseline), then on the text and its sources (unified, pairwise)
    merge      pairwise models become one
    fuse       the chosen model becomes fused/, an ordinary Hugging Face folder
    evaluate   pivot, sources, baseline and fused models on the held-out examples
    report     a table, report.html with its figures, and the model card of fused/

Every stage skips what is done, goes on with what is half done, and refuses what was made from something else.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fusion.analysis import example_overlays
from fusion.cache import Cache
from fusion.config import Config, loading
from fusion.plan import plan, plan_tables
from fusion.report.console_tables import responses_table
from fusion.report.html_page import write_report
from fusion.report.model_card import model_card
from fusion.report.score_table import helping_table, terminal_tables
from fusion.runtime import distributed
from fusion.runtime.artifacts import write_json, write_text
from fusion.runtime.console import console
from fusion.stages.context import Job
from fusion.stages.evaluate import candidates, evaluate_one
from fusion.stages.extract import cache_writer, extract_one, helping_batches, refuse_lone_answers, refuse_unknown
from fusion.stages.helping import helping
from fusion.stages.lineage import lineage
from fusion.stages.merge import fuse_chosen, merge_all
from fusion.stages.respond import answer, choose, outcome, read
from fusion.stages.train import train_one, training_source
from fusion.training import BASELINE, trainings_of
from fusion_eval.results import Result
from fusion_eval.runners import heldout

STAGES = ("respond", "extract", "train", "merge", "evaluate", "report")


def run(config: Config, until: str = "report") -> Path:
    """Run every stage up to `until`, after saying what it will take; the run's folder. Safe to stop and to call again.

    Under torchrun every process calls it: all of them extract and train, the main one does the rest while the others wait.
    """
    job = Job(config)
    if distributed.is_main_process():
        introduce(job)
    fine_tune(job)
    respond(job)
    if until != "respond":
        learn(job, STAGES.index(until) - 1)
    if distributed.is_main_process():
        write_text(config.folder / "config.yaml", loading.dump(config))
    distributed.barrier()
    return config.folder


def learn(job: Job, stages: int) -> None:
    """All that follows once there is something to learn from: extraction, and so many stages after it."""
    job.record.update(**lineage(job))
    caches = extract(job)
    if distributed.is_main_process():
        keep_caches(job, caches)
        show_helping(job, caches)
    for stage in (train_all, merge_pairwise, evaluate, report)[:stages]:
        if stage is train_all or distributed.is_main_process():  # the other processes only train
            stage(job, caches)


def introduce(job: Job) -> None:
    """Say what a new run will take, and keep what it is made of."""
    folder = job.config.folder
    if not job.record.read():
        estimate = plan(job, count=True)
        console.print(*plan_tables(estimate, job.config.plan), sep="\n")
        write_text(folder / "config.yaml", loading.dump(job.config))
        job.record.update(plan=[asdict(stage) for stage in estimate.stages])


def fine_tune(job: Job) -> None:
    """Sources that are to be fine-tuned before they teach, each on the data's own responses."""
    for source in job.config.sources:
        for name, alone in job.fine_tunings(source).items():
            with job.record.stage(f"fine-tune {name.removeprefix('sources/')}") as note:
                note["skipped"] = not train_one(alone, name, [], [])
    distributed.barrier()  # the main process has written all of them


def respond(job: Job) -> None:
    """Answers of the sources to the training prompts, and which are learned from. Nothing where the data's own are."""
    if not job.by_prompt:
        return
    for name in job.writers:
        with job.record.stage(f"respond {name}") as note:
            note["skipped"] = not answer(job, name)
    for name in job.readers:
        with job.record.stage(f"read responses {name}") as note:
            note["skipped"] = not read(job, name)
    with job.record.stage("choose responses") as note:
        note["skipped"] = not choose(job)
    job.record.update(responses=[asdict(count) for count in outcome(job)])
    console.print(responses_table(outcome(job)))


def extract(job: Job) -> dict[str, Cache]:
    """Rows of every model on every training example, by model. The pivot's tell what it knows before training."""
    refuse_lone_answers(job)
    caches = {}
    for name in job.models:
        with job.record.stage(f"extract {name}") as note:
            writer = cache_writer(job, name)
            note["skipped"] = writer.is_complete
            caches[name] = Cache(writer.folder) if writer.is_complete else extract_one(job, name, writer)
    refuse_unknown(job, caches)
    return caches


def keep_caches(job: Job, caches: dict[str, Cache]) -> None:
    """Keep the sizes of the caches, and one example of each domain as they hold it, for the report."""
    job.record.update(
        caches={name: {"rows": len(c), "bytes": c.size_in_bytes, "top_k": c.key["top_k"]} for name, c in caches.items()}
    )
    write_json(job.config.folder / "alignment.json", [asdict(one) for one in example_overlays(job, caches)])


def show_helping(job: Job, caches: dict[str, Cache]) -> None:
    """Print and keep the table *is this source helping?*"""
    found = helping(helping_batches(job, caches), job.config.alignment, job.weighting)
    job.record.update(helping=[asdict(row) for row in found])
    console.print(helping_table(job.record.read()["helping"]))


def train_all(job: Job, caches: dict[str, Cache]) -> None:
    """The baseline and every strategy, each from the same pivot, on the same examples, epochs and seed.

    Where sources wrote the responses, the baseline learns from those of the data.
    """
    sources = [training_source(job, name, cache) for name, cache in caches.items() if name != "pivot"]
    names = [source.name for source in job.config.sources]
    for name, learn_from in trainings_of(job.config.strategies, job.config.baseline, names).items():
        with job.record.stage(f"train {name}") as note:
            run, teachers = (job, sources) if learn_from else (job.plain, [])
            note["skipped"] = not train_one(run, name, teachers, learn_from, caches["pivot"])


def merge_pairwise(job: Job, _caches: dict[str, Cache]) -> None:
    """Merge the pairwise models, if there are any, and put the chosen model into fused/."""
    if "pairwise" in job.config.strategies:
        with job.record.stage("merge") as note:
            note["skipped"] = not merge_all(job)
    with job.record.stage("fuse") as note:
        note["skipped"] = not fuse_chosen(job)


def evaluate(job: Job, _caches: dict[str, Cache]) -> None:
    """Every model of the run on the held-out examples, each result in eval/<model>/heldout.json."""
    how = heldout.HeldoutSettings(
        exact_match=tuple(job.config.evaluation.exact_match),
        max_new_tokens=job.config.evaluation.max_new_tokens,
        batch_tokens=job.config.evaluation.batch_tokens,
        dtype=job.config.extract.dtype,
        device=distributed.device(),
    )
    for name, where in candidates(job).items():
        with job.record.stage(f"evaluate {name}") as note:
            note["skipped"] = not evaluate_one(job, name, where, how)


def report(job: Job, _caches: dict[str, Cache]) -> None:
    """Print the table, write report.html and the model card."""
    with job.record.stage("report"):
        fused = job.config.folder / "fused"
        (fused / "README.md").write_text(model_card(job.config.folder))
        page = write_report(job.config.folder)
    console.print(*terminal_tables(results(job), baseline=BASELINE if job.config.baseline else None), sep="\n")
    console.print(f"Fused model: [bold]{fused}[/]   report: [bold]{page}[/]")


def results(job: Job) -> list[Result]:
    """Results of all models that were evaluated, in the order of the table."""
    files = [job.config.folder / "eval" / name / "heldout.json" for name in candidates(job)]
    return [Result.load(file) for file in files if file.exists()]
