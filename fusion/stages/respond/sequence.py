"""Sources answer one after the other, and answers are read by whoever has something to say of them."""

from __future__ import annotations

from fusion.stages.context import RunContext
from fusion.stages.respond.answers import generate_answers, refuse_other_answers
from fusion.stages.respond.reads import score_answers
from fusion.stages.respond.unlabelled import (
    answer_unlabelled,
    best_sources,
    find_best_sources,
    refuse_unranked,
    show_best_sources,
)


def answer_all(context: RunContext) -> None:
    """Let every source answer the prompts, and models read the answers where checks or the choice ask for it."""
    if context.responding.best_answers_unlabelled:
        refuse_unranked(context)
    refuse_other_answers(context)
    for name in context.responding.sources:
        with context.record.stage(f"respond {name}") as note:
            note["skipped"] = not generate_answers(context, name)
    for name in context.responding.readers:
        with context.record.stage(f"read responses {name}") as note:
            note["skipped"] = not score_answers(context, name)
    if context.responding.best_answers_unlabelled:
        _answer_unlabelled(context)


def _answer_unlabelled(context: RunContext) -> None:
    """Let the best source of each domain, as its answers to prompts with a reference tell, answer those without one."""
    with context.record.stage("rank sources") as note:
        note["skipped"] = not find_best_sources(context)
    show_best_sources(context)
    for name in context.responding.sources:
        if name in best_sources(context).values():
            with context.record.stage(f"respond {name}, unlabelled") as note:
                note["skipped"] = not answer_unlabelled(context, name)
