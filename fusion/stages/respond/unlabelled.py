"""Prompts without a reference that one source alone answers: the best of their domain on prompts with a reference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fusion.core.text_files import read_object
from fusion.data.example import Example
from fusion.responses import ResponseStore, rank_sources
from fusion.runtime import distributed
from fusion.runtime.artifacts import claim_artifact, mark_complete
from fusion.runtime.console import show
from fusion.stages.context import RunContext
from fusion.stages.respond.answers import (
    REDO,
    answer_prompts,
    answer_store,
    by_prompt,
    first_prompts,
    prompt_answer_store,
)
from fusion.stages.respond.judge import (
    Written,
    answers_to_all,
    deciding,
    judge_answers,
    judged_by,
    refuse_changed_checks,
)

BEST_SOURCES = "responses/best_sources"


def refuse_unranked(context: RunContext) -> None:
    """Raise ValueError where nothing could say which source is best in the domain of a prompt without a reference."""
    ranked = {example.domain for example in first_prompts(context).values()}
    for example in _unlabelled(context):
        if example.domain not in ranked:
            raise ValueError(
                f"data.responses.unlabelled is best, and no prompt of domain {example.domain} has a reference to tell the best "
                f"source by ({example.origin}). Give the domain a data set with responses, or leave out unlabelled."
            )


def find_best_sources(context: RunContext) -> bool:
    """Rank the sources of each domain by their answers to prompts with a reference; whether there was something to do."""
    folder = context.config.folder / BEST_SOURCES
    with distributed.main_process_first(), deciding(folder, "The ranking of sources"):
        judged = judged_by(context)
        _forget_empty_ranking(folder)
        answers = {name: answer_store(context, name).key for name in context.responding.sources}
        if claim_artifact(folder, {"answers": answers, **judged}, REDO):
            return False
        prompts = judge_answers(context, answers_to_all(context), first_prompts(context))
        refuse_changed_checks(context, judged)
        domains = dict.fromkeys(example.domain for example in _unlabelled(context))
        ranking = {domain: rank_sources(prompts, domain, context.responding.sources) for domain in domains}
        mark_complete(folder, best={domain: ranked[0] for domain, ranked in ranking.items() if ranked})
    return True


def _forget_empty_ranking(folder: Path) -> None:
    """Take away a ranking in which no answer passed in any domain: another check is no contradiction then."""
    done = folder / "done.json"
    if distributed.is_main_process() and done.exists() and not read_object(done).get("best"):
        done.unlink()
        (folder / "key.json").unlink(missing_ok=True)


def best_sources(context: RunContext) -> dict[str, str]:
    """By domain of prompts without a reference: the source that answers them; a domain in which none passes is left out."""
    return read_object(context.config.folder / BEST_SOURCES / "done.json")["best"]


def show_best_sources(context: RunContext) -> None:
    """Say who answers the prompts without a reference of each domain."""
    best = best_sources(context)
    counts = Counter(example.domain for example in by_prompt(_unlabelled(context)).values())
    show(
        f"{counts[domain]:,} prompts of {domain} without a reference: "
        + (
            f"answered by {best[domain]}"
            if domain in best
            else f"left out, for no answer of any source passes in this domain{_lost_before_any_check(context, domain)}"
        )
        for domain in dict.fromkeys(example.domain for example in _unlabelled(context))
    )


def _lost_before_any_check(context: RunContext, domain: str) -> str:
    """How many answers to the prompts of a domain with a reference were empty or cut; nothing where all were whole."""
    how, asked = context.responding.settings, first_prompts(context)
    answers = [
        answer
        for written in answers_to_all(context).values()
        for id, of in written.items()
        if asked[id].domain == domain
        for answer in of
    ]
    lost = sum(not text.strip() or not (ended or how.truncated == "keep") for text, ended in answers)
    return f" ({lost} of {len(answers)} were empty or cut at max_new_tokens = {how.max_new_tokens})" if lost else ""


def unlabelled_store(context: RunContext, name: str) -> ResponseStore:
    """The folder of a source's answers to the prompts that it alone answers."""
    return prompt_answer_store(context, name, f"{name}-unlabelled", _asked_alone(context, name))


def answer_unlabelled(context: RunContext, name: str) -> bool:
    """Let a source answer the prompts that it alone answers; whether there was something to do."""
    return answer_prompts(context, name, unlabelled_store(context, name), _asked_alone(context, name))


def all_answers(context: RunContext) -> Written:
    """Everything that each source wrote."""
    written = dict(answers_to_all(context))
    if context.responding.best_answers_unlabelled:
        for name in set(best_sources(context).values()):
            written[name] = {**written[name], **unlabelled_store(context, name).read()}
    return written


def _unlabelled(context: RunContext) -> list[Example]:
    """Examples whose prompt has no reference in any row."""
    labelled = first_prompts(context)
    return [example for example in context.original_examples if example.prompt_id not in labelled]


def _asked_alone(context: RunContext, name: str) -> dict[str, Example]:
    """By prompt id, one example of each prompt that a source alone answers."""
    best = best_sources(context)
    return by_prompt(example for example in _unlabelled(context) if best.get(example.domain) == name)
