"""Rounds one after the other: the pivot writes, its sources read that, and the pivot learns from it."""

from __future__ import annotations

from fusion.cache import Cache
from fusion.runtime import distributed
from fusion.runtime.console import show
from fusion.runtime.run_file import RoundScore, RoundsFacts, RoundTexts
from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext, rounds_of
from fusion.stages.rounds.guard import best_round, score_round
from fusion.stages.rounds.kept import round_folder
from fusion.stages.rounds.read import read_one, readers
from fusion.stages.rounds.summary import count_texts, describe_texts
from fusion.stages.rounds.texts import judge_texts, write_texts
from fusion.stages.train import train_one, training_source


def go_all_rounds(context: RunContext) -> RoundsFacts:
    """Do every round, and say how good the pivot was after each and which is the result."""
    rounds = rounds_of(context)
    scores, texts = [validate(context, 0)], []
    for number in range(1, rounds.count + 1):
        texts.append(go_round(context, number))
        scores.append(validate(context, number))
    kept = best_round(scores) if rounds.keep == "best" and context.validation_examples else rounds.count
    read = any(objective.requirements.sources for objective in rounds.objectives if objective.weight)
    facts = {"kept": kept, "keep": rounds.keep, "start": context.config.chosen, "sources_read": read, "scores": scores}
    return RoundsFacts.model_validate(facts | {"texts": texts})


def go_round(context: RunContext, number: int) -> list[RoundTexts]:
    """Do one round: write, check, read, train; it begins with the model of the round before. What it wrote, by domain."""
    one = RoundContext.of(context, number, round_folder(context.config, number - 1) / "model")
    with context.record.stage(f"round {number}: write") as note:
        note["skipped"] = not write_texts(one)
    with context.record.stage(f"round {number}: check") as note:
        note["skipped"] = not judge_texts(one)
    texts = count_texts(one.written)
    if distributed.is_main_process():
        show(describe_texts(one, texts))
    caches = _read(context, one)
    names = {source.name for source in context.config.sources}
    sources = [training_source(one, name, caches[name]) for name in caches if name in names]
    with context.record.stage(f"round {number}: train") as note:
        learn_from = [source.name for source in sources]
        note["skipped"] = not train_one(
            one.learning, "unified", sources, learn_from, caches["pivot"], title=f"round {number}"
        )
    return texts


def _read(context: RunContext, one: RoundContext) -> dict[str, Cache]:
    """Let the pivot, then every source that teaches, read the texts of a round; their rows by name."""
    caches: dict[str, Cache] = {}
    for name in readers(one):
        with context.record.stage(f"round {one.number}: {name} reads") as note:
            caches[name], did = read_one(one, name)
            note["skipped"] = not did
    return caches


def validate(context: RunContext, number: int) -> list[RoundScore]:
    """Let the model after a round answer the validation prompts; nothing where there are none."""
    if not context.validation_examples:
        return []
    with context.record.stage(f"round {number}: validate") as note:
        found, did = score_round(context, number, round_folder(context.config, number) / "model")
        note["skipped"] = not did
    return found
