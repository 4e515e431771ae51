"""The story: from a configuration to one fused model with the evidence beside it. Start reading here.

    fine-tune  sources learn the training data's style first, where they are to
    respond    sources answer the training prompts, where their responses are to be learned from
    extract    the pivot reads every training example once, and so do sources to learn from; rows go to cache/<model>
    helping    what each source knows of each domain, against the pivot: printed before anything is trained
    train      the pivot on the text alone (the baseline), then on the text and its sources (unified, pairwise)
    merge      pairwise models become one
    rounds     where the run has them: the pivot writes, its sources read that, and it learns from it
    preferences  where the run has them: right answers against wrong ones to the same prompts, of those at hand
    fuse       the chosen model becomes fused/, an ordinary Hugging Face folder
    evaluate   pivot, sources, baseline and fused models on the held-out examples
    report     a table, report.html with its figures, and the model card of fused/

Every stage but helping and report, which cost little, skips what is done, goes on with what is half done (a cache at its
missing shards, a training at its newest checkpoint), and refuses what was made from something else: see `runtime.artifacts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from fusion.analysis import example_overlays
from fusion.cache import Cache
from fusion.config import Config, loading
from fusion.plan import plan, plan_tables
from fusion.report.console_tables import responses_table
from fusion.report.model_card import model_card
from fusion.report.rounds import rounds_table
from fusion.report.score_table import helping_table, terminal_tables
from fusion.runtime import distributed
from fusion.runtime.artifacts import OtherInputsError, write_json, write_text
from fusion.runtime.console import console, show
from fusion.runtime.unfinished import remove_abandoned_below
from fusion.stages.context import RunContext
from fusion.stages.data_sets import describe_data
from fusion.stages.evaluate import Candidates, candidates, evaluate_one, originals, refuse_other_results
from fusion.stages.extract import (
    cache_writer,
    checked_cache,
    extract_one,
    helping_batches,
    refuse_lone_answers,
    refuse_other_caches,
    refuse_unknown,
)
from fusion.stages.fine_tune import fine_tune_one
from fusion.stages.following import following
from fusion.stages.helping import helping
from fusion.stages.limits.notices import notices
from fusion.stages.limits.refuse import refuse_limits, refuse_long_texts, refuse_machine
from fusion.stages.lineage import idle_sources, lineage, same_models, versions
from fusion.stages.merge import fuse_chosen, merge_all
from fusion.stages.preferences.pairs import refuse_without_pairs
from fusion.stages.preferences.sequence import learn_from_pairs
from fusion.stages.respond.choose import choose_responses, response_counts
from fusion.stages.respond.judge import prepare_checks
from fusion.stages.respond.sequence import answer_all
from fusion.stages.rounds.kept import keep_round, round_folder
from fusion.stages.rounds.sequence import go_all_rounds
from fusion.stages.train import refuse_other_trainings, train_one, training_source
from fusion.training import BASELINE, trainings_of
from fusion_eval.results import Result
from fusion_eval.runners import heldout

STAGES = ("respond", "extract", "train", "merge", "rounds", "preferences", "evaluate", "report")
SHARED = ("respond", "extract")
"""Stages that several starts may do at once: each claims what it works on."""


def run(config: Config, until: str = "report") -> Path:
    """Run every stage up to `until`, after saying what it will take, and return the run's folder. Safe to stop and call again.

    Under torchrun every process calls it: all of them extract and train, the main one does the rest while the others wait.
    Raises BlockingIOError, naming its process, where the run is being worked on already, and ValueError for no such stage.
    """
    if until not in STAGES:
        raise ValueError(f"until is {until!r}; a run goes until {', '.join(STAGES)}.")
    context = RunContext(config)
    try:
        with nullcontext() if until in SHARED else context.record.lock():
            run_stages(context, until)
    except OtherInputsError as error:
        redo = "fusion run" if until == "report" else f"fusion {until}"
        raise OtherInputsError(error.paths, error.different, redo, following(config, error.paths)) from None
    return config.folder


def run_stages(context: RunContext, until: str) -> None:
    """Run every stage up to `until`; whoever trains must be alone, see `RunRecord.lock`."""
    if distributed.is_main_process():
        introduce(context)
    fine_tune(context)
    respond(context)
    if until != "respond":
        learn(context, STAGES.index(until) - 1)
    if distributed.is_main_process():
        write_text(context.config.folder / "config.yaml", loading.dump(context.config))
    distributed.barrier()


def learn(context: RunContext, stages: int) -> None:
    """Extract, then do `stages` of what follows: train, merge, rounds, preferences, evaluate, report."""
    context.record.update(**lineage(context))
    caches = extract(context)
    if distributed.is_main_process():
        record_caches(context, caches)
        show_helping(context, caches)
    training = (train_all, learn_in_rounds, learn_preferences)
    for stage in (train_all, merge_pairwise, *training[1:], evaluate, report)[:stages]:
        if stage in training or distributed.is_main_process():  # the other processes only train
            stage(context, caches)


def introduce(context: RunContext) -> None:
    """Refuse a new run that would stop later on, say what it will take, and keep what it is made of."""
    folder = context.config.folder
    remove_abandoned_below(folder)
    if "plan" not in context.record.read():
        refuse_machine(context)
        refuse_limits(context)
        estimate = plan(context, count=True)
        console.print(*plan_tables(estimate, context.config.plan), sep="\n")
        write_text(folder / "config.yaml", loading.dump(context.config))
        found = [
            *describe_data(context),
            *same_models(context.planned),
            *idle_sources(context.config),
            *notices(context),
        ]
        show(found)
        context.record.update(plan=[asdict(stage) for stage in estimate.stages])


def fine_tune(context: RunContext) -> None:
    """Fine-tune the sources that ask for it (`fine_tune`) on the data's own responses, before they teach."""
    for source in context.config.sources:
        for name, training in context.fine_tunings(source).items():
            with context.record.stage(f"fine-tune {name.removeprefix('sources/')}") as note:
                note["skipped"] = not fine_tune_one(training, name)
    distributed.barrier()  # the main process has written all of them


def respond(context: RunContext) -> None:
    """Let sources answer the training prompts, and choose what is learned from. Nothing where the data's own answers are."""
    if not context.has_generated_responses:
        return
    prepare_checks(context)
    answer_all(context)
    with context.record.stage("choose responses") as note:
        note["skipped"] = not choose_responses(context)
    context.record.update(responses=[asdict(count) for count in response_counts(context)])
    console.print(responses_table(response_counts(context)))
    refuse_without_pairs(context)


def extract(context: RunContext) -> dict[str, Cache]:
    """Let each model read all training examples; return its cached rows by its name.

    The pivot's, under `pivot`, tell what it knows before training. Sources read only where something learns from that.
    """
    refuse_lone_answers(context)
    refuse_long_texts(context)
    caches = {}
    refuse_other_caches(context)
    for name in context.extracted_models:
        with context.record.stage(f"extract {name}") as note:
            writer = cache_writer(context, name)
            note["skipped"] = writer.is_complete
            caches[name] = checked_cache(writer) if writer.is_complete else extract_one(context, name, writer)
    refuse_unknown(context, caches)
    return caches


def record_caches(context: RunContext, caches: dict[str, Cache]) -> None:
    """Keep the sizes of the caches, and one example of each domain as they hold it, for the report."""
    context.record.update(
        caches={name: {"rows": len(c), "bytes": c.size_in_bytes, "top_k": c.key["top_k"]} for name, c in caches.items()}
    )
    overlays = example_overlays(context, caches) if context.config.reads_sources else []
    write_json(context.config.folder / "alignment.json", [asdict(one) for one in overlays])


def show_helping(context: RunContext, caches: dict[str, Cache]) -> None:
    """Print and keep the table *is this source helping?*; nothing where sources have not read."""
    if not context.config.reads_sources:
        return
    found = helping(helping_batches(context, caches), context.config.alignment, context.weighting)
    context.record.update(helping=[asdict(row) for row in found])
    console.print(helping_table(context.record.read()["helping"]))


def train_all(context: RunContext, caches: dict[str, Cache]) -> None:
    """Train the baseline and every strategy, each from the same pivot, on the same examples, epochs and seed.

    Where sources wrote the responses, the baseline learns from those of the data.
    """
    sources = [training_source(context, name, cache) for name, cache in caches.items() if name != "pivot"]
    names = [source.name for source in context.config.sources]
    trainings = {
        name: (context, sources, learn_from) if learn_from else (context.baseline_context, [], learn_from)
        for name, learn_from in trainings_of(context.config.strategies, bool(context.config.baseline), names).items()
    }
    refuse_other_trainings(trainings)
    for name, (which, teachers, learn_from) in trainings.items():
        with context.record.stage(f"train {name}") as note:
            note["skipped"] = not train_one(which, name, teachers, learn_from, caches["pivot"])


def merge_pairwise(context: RunContext, _caches: dict[str, Cache]) -> None:
    """Merge the pairwise models, if there are any, and put the chosen model into fused/, unless something goes on from it."""
    if "pairwise" in context.config.strategies:
        with context.record.stage("merge") as note:
            note["skipped"] = not merge_all(context)
    if context.config.fused == context.config.chosen:
        fuse(context)


def fuse(context: RunContext, chosen: Path | None = None) -> None:
    """Put the chosen model into fused/: that of the training in the folder `chosen`, or the one that the run keeps."""
    with context.record.stage("fuse") as note:
        note["skipped"] = not fuse_chosen(context, chosen)


def learn_in_rounds(context: RunContext, _caches: dict[str, Cache]) -> None:
    """Let the pivot write, its sources read that, and the pivot learn from it; keep the round whose answers pass most often.

    Nothing where the run has no rounds.
    """
    if context.config.rounds is None:
        return
    prepare_checks(context)
    distributed.barrier()  # the main process has merged what rounds may begin from
    found = go_all_rounds(context)
    if distributed.is_main_process():
        if context.config.preferences is None:  # first, for fused/ may hold another model, and then none is kept
            fuse(context, round_folder(context.config, found.kept))
        context.record.update(rounds=found.model_dump())
        console.print(rounds_table(found))
        keep_round(context.config, found.kept)
    distributed.barrier()


def learn_preferences(context: RunContext, _caches: dict[str, Cache]) -> None:
    """Pair right and wrong answers, let those read them who are asked, and train the pivot on them.

    Nothing where the run has no preferences.
    """
    if context.config.preferences is None:
        return
    prepare_checks(context)
    distributed.barrier()  # the main process has made what this begins from
    found = learn_from_pairs(context)
    if distributed.is_main_process():
        context.record.update(preferences=[asdict(each) for each in found])
        fuse(context)
    distributed.barrier()


def evaluate(context: RunContext, _caches: dict[str, Cache]) -> None:
    """Measure every model of the run on the held-out examples; each result goes to eval/<model>/heldout.json."""
    measure(context, candidates(context))


def evaluate_originals(config: Config) -> None:
    """Measure pivot and sources alone, and print the table: is there anything to learn?

    A run that follows measures them no more. Raises ValueError where `evaluation.original_models` is false.
    """
    context = RunContext(config)
    if not config.evaluation.original_models:
        raise ValueError(
            "evaluation.original_models is false, so neither the pivot nor a source is measured; set it to true."
        )
    with context.record.lock():
        refuse_limits(context)
        context.record.update(date=context.date.isoformat(), versions=versions())
        fine_tune(context)
        if distributed.is_main_process():
            measure(context, originals(context))
            console.print(*terminal_tables(results(context, originals(context)), baseline="pivot"), sep="\n")


def measure(context: RunContext, models: Candidates) -> None:
    """Measure these models on the held-out examples."""
    how = heldout.HeldoutSettings(
        exact_match=tuple(context.config.evaluation.exact_match),
        compare=context.config.evaluation.compared_parts,
        max_new_tokens=context.config.evaluation.max_new_tokens,
        batch_tokens=context.config.evaluation.batch_tokens,
        dtype=context.config.extract.resolved_dtype,
        device=distributed.device(),
    )
    refuse_other_results(context, models, how)
    for name, where in models.items():
        with context.record.stage(f"evaluate {name}") as note:
            note["skipped"] = not evaluate_one(context, name, where, how)


def report(context: RunContext, _caches: dict[str, Cache]) -> None:
    """Print the table, write report.html and the model card."""
    from fusion.report.html_page import write_report  # with it matplotlib, which no other stage needs

    with context.record.stage("report"):
        fused = context.config.folder / "fused"
        write_text(fused / "README.md", model_card(context.config.folder))
        page = write_report(context.config.folder)
    show_scores(context)
    console.print(f"Fused model: [bold]{fused}[/]   report: [bold]{page}[/]")


def show_scores(context: RunContext) -> None:
    """Print the table of all models that were evaluated."""
    if distributed.is_main_process():
        baseline = BASELINE if context.config.baseline else None
        console.print(*terminal_tables(results(context), baseline), sep="\n")


def results(context: RunContext, names: Iterable[str] | None = None) -> list[Result]:
    """Return the results of all models that were evaluated, or of these, in the order of the table."""
    names = candidates(context) if names is None else names
    files = [context.config.folder / "eval" / name / "heldout.json" for name in names]
    return [Result.load(file) for file in files if file.exists()]
