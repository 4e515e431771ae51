"""The choice of what is learned from, among all answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from fusion.core.text_files import read_object
from fusion.data.example import Example
from fusion.responses import (
    PASSES,
    GeneratedResponses,
    PromptResponses,
    choose_examples,
    count_responses,
    example_to_json,
    passes_to_jsonl,
)
from fusion.runtime import distributed
from fusion.runtime.artifacts import claim_artifact, mark_complete, write_text
from fusion.runtime.console import show
from fusion.runtime.run_file import ResponseCounts
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.respond.answers import REDO, answer_store, first_prompts
from fusion.stages.respond.judge import deciding, judge_answers, judged_by, refuse_changed_checks
from fusion.stages.respond.unlabelled import all_answers, best_sources, unlabelled_store


def choose_responses(context: RunContext) -> bool:
    """Check all answers and keep the examples to learn from; whether there was something to do.

    Raises ValueError where no example is left, or a check lacks what it compares with.
    """
    folder, sources = context.config.folder / CHOSEN, context.responding.sources
    with distributed.main_process_first(), deciding(folder, "The choice of responses"):
        judged = judged_by(context)
        if not (folder / "done.json").exists():  # nothing was left to learn from: another choice is no contradiction
            (folder / "key.json").unlink(missing_ok=True)
        if claim_artifact(folder, {"answers": _answer_keys(context), **judged}, REDO):
            return False
        written = all_answers(context)
        prompts = judge_answers(context, written)
        refuse_changed_checks(context, judged)
        found = choose_examples(prompts, context.responding.settings, sources)
        judged_ids = first_prompts(context) if context.responding.best_answers_unlabelled else None
        how_well = count_responses(prompts, found, {name: written[name] for name in sources}, judged_ids)
        if not found:
            raise ValueError(_nothing_left(how_well, context.responding.settings, prompts))
        lines = [json.dumps(example_to_json(example, source)) for example, source in found]
        write_text(folder / "examples.jsonl", "".join(f"{line}\n" for line in lines))
        write_text(folder / PASSES, passes_to_jsonl(prompts, sources, context.responding.settings.samples))
        mark_complete(folder, counts=[asdict(each) for each in how_well])
        show([*_broken_tests(prompts), *_nothing_left_of_domains(found, prompts)])
    return True


def _nothing_left_of_domains(
    found: Sequence[tuple[Example, str | None]], prompts: Sequence[PromptResponses]
) -> Iterator[str]:
    """Say of which domains nothing is learned, with an answer that did not pass."""
    learned = {example.domain for example, _ in found}
    for domain in dict.fromkeys(prompt.example.domain for prompt in prompts):
        if domain not in learned:
            of_domain = [prompt for prompt in prompts if prompt.example.domain == domain]
            yield (
                f"  {domain}: nothing is learned from its {len(of_domain):,} prompts, for no answer passed its check. "
                f"{_failed_answer(of_domain)}"
            )


def _broken_tests(prompts: Sequence[PromptResponses]) -> Iterator[str]:
    """Say of each domain how many prompts have tests that do not run themselves, with the first."""
    for domain in dict.fromkeys(prompt.example.domain for prompt in prompts if prompt.tests_broken):
        broken = [prompt for prompt in prompts if prompt.tests_broken and prompt.example.domain == domain]
        yield (
            f"  {domain}: of {len(broken):,} prompts the tests themselves do not run, whatever is answered: "
            f"{broken[0].tests_broken} ({broken[0].example.origin}). Mend or leave out such rows."
        )


def _failed_answer(prompts: Sequence[PromptResponses]) -> str:
    """An answer that did not pass, with the reason or what it was compared with; empty where there is no answer."""
    all_failed = [prompt for prompt in prompts if prompt.responses and not any(prompt.passed)]
    if not all_failed:
        return ""
    failed = next((prompt for prompt in all_failed if not prompt.tests_broken), all_failed[0])
    first, reference = failed.responses[0], failed.example.response
    if failed.reasons and failed.reasons[0]:
        whose = "Its tests do not run" if failed.tests_broken else "It does not pass its tests"
        return f"For example, {first.source} answered {first.text!r:.120}. {whose}: {failed.reasons[0]}. "
    compared = f", where the data has {reference!r:.60}" if reference else ""
    return (
        f"For example, {first.source} answered {first.text!r:.120}{compared}. If that is right, choose another check for it "
        "(docs/responses.md). "
    )


def _nothing_left(
    how_well: Sequence[ResponseCounts], how: GeneratedResponses, prompts: Sequence[PromptResponses]
) -> str:
    """Say that nothing is left to learn from, whether because answers did not pass or because they were not whole."""
    passed = ", ".join(
        f"{c.passed} of {c.answers if c.judged is None else c.judged} answers of {c.source} in {c.domain}"
        for c in how_well
    )
    whole, asked = sum(c.answers for c in how_well), sum(c.prompts for c in how_well) * how.samples
    lost = asked - whole
    left_out = (
        f"{lost} of {asked} answers were left out before any check, for they are empty or were cut at max_new_tokens = "
        f"{how.max_new_tokens}: raise it, or learn from cut ones too with data.responses.truncated: keep, which is for models "
        "that never end a text by themselves. "
    )
    broken = "".join(f"{each.strip()} " for each in _broken_tests(prompts))
    return (
        f"There is nothing to learn from: {passed} passed. {broken}{_failed_answer(prompts)}{left_out if lost else ''}"
        "See data.train[...].check and data.responses.fallback."
    )


def judged_responses(context: RunContext) -> list[PromptResponses]:
    """Every prompt of the data with all its answers, and which of them pass the check of its data set."""
    return judge_answers(context, all_answers(context))


def response_counts(context: RunContext) -> list[ResponseCounts]:
    """How every source did in every domain, once the examples are chosen."""
    return [ResponseCounts(**each) for each in read_object(context.config.folder / CHOSEN / "done.json")["counts"]]


def _answer_keys(context: RunContext) -> dict[str, object]:
    """What the answers depend on, by source; of those that it alone wrote, too."""
    keys: dict[str, object] = {name: answer_store(context, name).key for name in context.responding.sources}
    if context.responding.best_answers_unlabelled:
        alone = set(best_sources(context).values())
        keys |= {f"{name}, unlabelled": unlabelled_store(context, name).key for name in sorted(alone)}
    return keys
