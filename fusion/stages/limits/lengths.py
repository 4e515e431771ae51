"""Texts that are longer than a model reads: of the data, and prompts with the answers that are to follow them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fusion.data.example import Example
from fusion.models.context_length import ContextLength
from fusion.stages.context import RunContext
from fusion.stages.limits.models import context_lengths, label
from fusion.stages.limits.overlong import is_evaluated, overlong, possibly_longer, prompt_lengths, text_lengths

LEAVE_OUT = "set data.filter_overlong_prompts: true to leave them out"


def long_prompts(context: RunContext) -> Iterator[str]:
    """A sentence for each model whose prompts leave no room for a response in training; the first is named."""
    for name in context.models:
        for part, examples in (("training", context.train_examples), ("validation", _validation_of(context, name))):
            if found := list(overlong(context, name, examples)):
                yield (
                    f"{label(context, name)}: {len(found)} of {len(examples)} {part} prompts leave no room for a response "
                    f"within {found[0].limit} tokens: the first ({where_read(examples[found[0].number])}) takes "
                    f"{found[0].tokens - 1}. Raise data.max_length as far as the model reads, or {LEAVE_OUT}."
                )


def long_texts(context: RunContext) -> Iterator[str]:
    """A sentence for each model and part of the data with texts longer than the model reads.

    Those of the data come first, in training, then in validation, then held out; the first is named.
    """
    for name, limit in context_lengths(context).items():
        yield from _long_extracted(context, name, limit)
        if name == "pivot" and not _extracts_validation(context) and context.config.data.validation:
            way_out = f"Set data.max_length to {limit.tokens} or less"
            yield from longer_texts(
                label(context, name),
                limit,
                "validation",
                context.validation_examples,
                context.validation_texts.lengths,
                way_out,
            )
        if is_evaluated(context, name):
            yield from _long_heldout(context, name, limit)


def _validation_of(context: RunContext, name: str) -> list[Example]:
    """Validation examples that a model of the run reads: the pivot while it trains, all where weights are chosen on them."""
    return context.validation_examples if name == "pivot" or _extracts_validation(context) else []


def _extracts_validation(context: RunContext) -> bool:
    return len(context.extracted_examples) > len(context.train_examples)


def long_answers(context: RunContext) -> Iterator[str]:
    """A sentence for each model whose prompts leave too few tokens for the answers that it is to write."""
    for name, limit in context_lengths(context).items():
        domains = set(context.config.evaluation.exact_match)
        if domains and is_evaluated(context, name):
            asked = [example for example in context.heldout_examples if example.domain in domains]
            room = context.config.evaluation.max_new_tokens
            yield from _no_room(context, name, limit, asked, "held-out", "evaluation.max_new_tokens", room)
        if context.has_generated_responses and name in context.responding.sources:
            room = context.responding.settings.max_new_tokens
            asked = context.original_examples
            yield from _no_room(context, name, limit, asked, "training", "data.responses.max_new_tokens", room)
        if (rounds := context.config.rounds) is not None and name == "pivot":
            room, key = rounds.max_completion_length, "rounds.max_completion_length"
            yield from _no_room(context, name, limit, context.original_examples, "training", key, room)
            yield from _no_room(context, name, limit, context.validation_examples, "validation", key, room)


def where_read(example: Example) -> str:
    """An example as a message names it: its file and row where they are known, and how it begins."""
    text = example.prompt or example.response
    return f"{example.origin + ', ' if example.origin else ''}begins {text[:60]!r}"


def _long_extracted(context: RunContext, name: str, limit: ContextLength) -> Iterator[str]:
    texts, count = context.encoded(name), len(context.train_examples)
    unwritten = context.for_plan and context.has_generated_responses  # their length is not known yet
    lengths = texts.lengths.copy()
    if unwritten:
        lengths[:count] = texts.starts[:count] + 1
    for part, first, end in (("training", 0, count), ("validation", count, len(texts))):
        examples = context.extracted_examples[first:end]
        most = context.config.data.max_length
        way_out = (
            f"Set data.max_length to {limit.tokens} or less"
            if most > limit.tokens
            else "Shorten what is in front of the prompts (shots, look_ahead)"
        )
        yield from longer_texts(label(context, name), limit, part, examples, lengths[first:end], way_out)


def _long_heldout(context: RunContext, name: str, limit: ContextLength) -> Iterator[str]:
    heldout = context.heldout_examples
    examples = [heldout[number] for number in possibly_longer(context, name, heldout, limit.tokens)]
    lengths = text_lengths(context, name, examples)
    way_out = f"Shorten them (prompt_chars and response_chars in data.heldout), {LEAVE_OUT}"
    yield from longer_texts(label(context, name), limit, "held-out", examples, lengths, way_out)


def _no_room(
    context: RunContext, name: str, limit: ContextLength, examples: Sequence[Example], part: str, key: str, room: int
) -> Iterator[str]:
    asked = [examples[number] for number in possibly_longer(context, name, examples, limit.tokens - room)]
    lengths = [tokens + room for tokens in prompt_lengths(context, name, asked)]
    too_long = [(length, example) for length, example in zip(lengths, asked, strict=True) if length > limit.tokens]
    if too_long:
        length, first = too_long[0]
        yield (
            f"{label(context, name)} reads at most {limit.tokens} tokens ({limit.key}), and for {len(too_long)} of "
            f"{len(examples)} {part} prompts {key} = {room} leaves no room: the first ({where_read(first)}) would take "
            f"{length}. Lower {key}, or {LEAVE_OUT}."
        )


def longer_texts(
    model: str,
    limit: ContextLength,
    part: str,
    examples: Sequence[Example],
    lengths: Sequence[int] | NDArray[np.int64],
    way_out: str,
) -> Iterator[str]:
    """A sentence where examples of these lengths are longer than a model reads, with the first of them."""
    too_long = np.flatnonzero(np.asarray(lengths) > limit.tokens)
    if len(too_long):
        first = too_long[0]
        yield (
            f"{model} reads at most {limit.tokens} tokens ({limit.key}), and {len(too_long)} of the "
            f"{part} examples are longer: the first ({where_read(examples[first])}) has {lengths[first]}. {way_out}, or "
            "take a model that reads more."
        )
