"""What is worth knowing before a run begins and is no mistake: limits that many answers would not fit into."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fusion.data.chat_template import uses_chat_template
from fusion.data.encode import plain_text
from fusion.responses import FinalAnswerCheck
from fusion.stages.prompts import prompt_format
from fusion.stages.rounds.prompts import count_prompts

if TYPE_CHECKING:
    from fusion.data.example import Example
    from fusion.stages.context import RunContext

LOOKED_AT = 200
"""References of a domain that are put into tokens, the first."""
READ = 2_000
"""References of a domain that are read, the first."""
MANY = 0.05
"""Share of them that may be longer than a limit before it is said."""


def notices(context: RunContext) -> Iterator[str]:
    """Yield, for people, a sentence for each limit of the configuration that the data do not fit."""
    context, config = context.planned, context.config  # sources may be yet to be fine-tuned
    if context.has_generated_responses:
        how = context.responding.settings
        lost = "left out" if how.truncated == "leave_out" else "cut"
        yield from _too_long(
            context,
            context.original_examples,
            how.max_new_tokens,
            f"data.responses.max_new_tokens: answers as long are {lost}",
        )
    measured = [example for example in context.heldout_examples if example.domain in config.evaluation.exact_match]
    limit = config.evaluation.max_new_tokens
    yield from _too_long(
        context, measured, limit, "evaluation.max_new_tokens: answers as long are cut, and count as wrong"
    )
    yield from _without_answer(context)
    yield from _glued(context)
    if config.rounds is not None:
        prompts, rows = sum(count_prompts(context.original_examples).values()), len(context.original_examples)
        if prompts < config.rounds.prompts:
            yield f"rounds.prompts is {config.rounds.prompts:,}, and data.train has {prompts:,}: every round has all of them."
        if prompts < rows:
            yield f"{rows - prompts:,} of {rows:,} training examples repeat a prompt: rounds judge answers by the first of it."


def _without_answer(context: RunContext) -> Iterator[str]:
    """Say where references have no number or option that could be compared, so that every answer to them is wrong."""
    compared: dict[tuple[str, str, str], list[bool | str]] = defaultdict(list)
    pairs = zip(context.original_examples, context.checks, strict=True)
    judged = [(e, check, "passes") for e, check in pairs if isinstance(check, FinalAnswerCheck)]
    parts = context.config.evaluation.compared_parts.items()
    measured = {domain: FinalAnswerCheck(compare=part) for domain, part in parts}
    asked = [(e, measured[e.domain], "counts as right") for e in context.heldout_examples if e.domain in measured]
    for example, check, what in (*judged, *asked):
        if example.response and len(found := compared[example.domain, check.compare, what]) < READ:
            found.append(check.finds(example.response) or example.response)
    for (domain, part, what), found in compared.items():
        if lacking := [reference for reference in found if reference is not True]:
            yield (
                f"{domain}: {len(lacking)} of {len(found)} references have no {part}, such as {str(lacking[0])[:60]!r}, so no "
                f"answer to them {what}. Choose compare: text where answers are not {part}s, or mend these."
            )


def _glued(context: RunContext) -> Iterator[str]:
    """Say where a model's prompts are plain text that an answer follows without any space, as people seldom mean it."""
    by_domain: dict[str, list[Example]] = defaultdict(list)
    for example in (*context.original_examples, *context.heldout_examples):
        if example.response and example.messages:
            by_domain[example.domain].append(example)
    for name in context.models:
        for domain, examples in by_domain.items():
            glued = [found for each in examples[:LOOKED_AT] if (found := _glued_text(context, name, each))]
            if len(glued) > MANY * len(examples[:LOOKED_AT]):
                yield (
                    f"{domain}: {name} reads an answer right behind its prompt, such as {glued[0]!r}, for it has no chat "
                    "template or is set to plain. Set its answer_prefix to what stands between them, such as answer_prefix: "
                    '"\\n", or "" if this is meant.'
                )


def _glued_text(context: RunContext, name: str, example: Example) -> str | None:
    """Where prompt and answer meet; None where a chat template or white space is between them, or it is meant."""
    form = prompt_format(context, name, example)
    if form.answer_prefix is not None or uses_chat_template(context.tokenizers[name], form):
        return None
    prompt = plain_text(example.messages, form)
    if not prompt or prompt[-1].isspace() or example.response[0].isspace():
        return None
    return f"{prompt[-30:]}{example.response[:30]}"


def _too_long(context: RunContext, examples: Sequence[Example], limit: int, setting: str) -> Iterator[str]:
    """Count by domain the references that are longer than `limit` tokens of the pivot; say so where they are many."""
    by_domain: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        if example.response:
            by_domain[example.domain].append(example.response)
    for domain, responses in by_domain.items():
        lengths = _lengths(context.tokenizers["pivot"], responses[:LOOKED_AT])
        if (longer := sum(length > limit for length in lengths)) > MANY * len(lengths):
            yield (
                f"{domain}: {longer} of {len(lengths)} references are longer than {limit} tokens of the pivot, the longest has "
                f"{max(lengths)}. {setting}."
            )


def _lengths(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    found = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]  # else it warns of long ones
    return [len(ids) for ids in found]
