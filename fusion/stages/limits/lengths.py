"""Texts that are longer than a model reads: of the data, and prompts with the answers that are to follow them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fusion.data.datasets import Example
from fusion.data.encode import encode, encode_prompt
from fusion.models.context_length import ContextLength, context_length
from fusion.stages.context import RunContext
from fusion.stages.limits.models import label, read_configs
from fusion.stages.prompts import prompt_format

TEMPLATE_TOKENS = 512
"""More than a chat template writes around a conversation: texts that are shorter than a limit by this are not encoded."""


def long_texts(context: RunContext) -> Iterator[str]:
    """A sentence for each model and part of the data with texts longer than the model reads.

    Those of the data come first, in training, then in validation, then held out; the first is named.
    """
    for name, limit in context_lengths(context).items():
        yield from _long_extracted(context, name, limit)
        if _is_evaluated(context, name):
            yield from _long_heldout(context, name, limit)


def long_answers(context: RunContext) -> Iterator[str]:
    """A sentence for each model whose prompts leave too few tokens for the answers that it is to write."""
    for name, limit in context_lengths(context).items():
        domains = set(context.config.evaluation.exact_match)
        if domains and _is_evaluated(context, name):
            asked = [example for example in context.heldout_examples if example.domain in domains]
            room = context.config.evaluation.max_new_tokens
            yield from _no_room(context, name, limit, asked, "held-out", "evaluation.max_new_tokens", room)
        if context.has_generated_responses and name in context.responding_sources:
            room = context.response_settings.max_new_tokens
            asked = context.original_examples
            yield from _no_room(context, name, limit, asked, "training", "data.responses.max_new_tokens", room)


def context_lengths(context: RunContext) -> dict[str, ContextLength]:
    """The longest text that each model reads, by name, where there is one."""
    found = {}
    for name, config in read_configs(context).items():
        limits = [context_length(config)]
        backend = context.backend(name)
        if (own := getattr(backend, "max_model_len", None)) is not None:
            limits = [ContextLength(own, "backend.max_model_len")]
        if limits[0] is not None:  # vLLM writes a token behind every text, which is thrown away
            found[name] = limits[0]._replace(tokens=limits[0].tokens - (backend.kind == "vllm"))
    return found


def where_read(example: Example) -> str:
    """An example as a message names it: its file and row where they are known, and how it begins."""
    text = example.prompt or example.response
    return f"{example.origin + ', ' if example.origin else ''}begins {text[:60]!r}"


def _is_evaluated(context: RunContext, name: str) -> bool:
    return name == "pivot" or context.config.evaluation.original_models


def _long_extracted(context: RunContext, name: str, limit: ContextLength) -> Iterator[str]:
    texts, count = context.encoded(name), len(context.train_examples)
    unwritten = context.for_plan and context.has_generated_responses  # their length is not known yet
    lengths = [
        text.start + 1 if unwritten and number < count else len(text.input_ids) for number, text in enumerate(texts)
    ]
    for part, first, end in (("training", 0, count), ("validation", count, len(texts))):
        examples = context.extracted_examples[first:end]
        most = context.config.data.max_length
        way_out = (
            f"Set data.max_length to {limit.tokens} or less"
            if most > limit.tokens
            else "Shorten what is in front of the prompts (shots, look_ahead)"
        )
        yield from _sentence(context, name, limit, part, examples, lengths[first:end], way_out)


def _long_heldout(context: RunContext, name: str, limit: ContextLength) -> Iterator[str]:
    examples = _possibly_longer(context, name, context.heldout_examples, limit.tokens)
    lengths = [
        len(
            encode(
                context.tokenizers[name],
                example.messages,
                example.response,
                prompt_format=prompt_format(context, name, example),
            ).input_ids
        )
        for example in examples
    ]
    way_out = "Shorten them (prompt_chars and response_chars in data.heldout) or leave them out"
    yield from _sentence(context, name, limit, "held-out", examples, lengths, way_out)


def _no_room(
    context: RunContext, name: str, limit: ContextLength, examples: Sequence[Example], part: str, key: str, room: int
) -> Iterator[str]:
    asked = _possibly_longer(context, name, examples, limit.tokens - room)
    lengths = [prompt_tokens(context, name, example) + room for example in asked]
    too_long = [(length, example) for length, example in zip(lengths, asked, strict=True) if length > limit.tokens]
    if too_long:
        length, first = too_long[0]
        yield (
            f"{label(context, name)} reads at most {limit.tokens} tokens ({limit.key}), and for {len(too_long)} of "
            f"{len(examples)} {part} prompts {key} = {room} leaves no room: the first ({where_read(first)}) would take "
            f"{length}. Lower {key}, or leave such prompts out."
        )


def prompt_tokens(context: RunContext, name: str, example: Example) -> int:
    """How many tokens of a model the prompt of an example takes."""
    form = prompt_format(context, name, example)
    return len(encode_prompt(context.tokenizers[name], example.messages, prompt_format=form).ids)


def _possibly_longer(context: RunContext, name: str, examples: Sequence[Example], tokens: int) -> list[Example]:
    """Those that may take more tokens than so many: a token has a byte at least, the template's own aside."""
    return [
        example
        for example in examples
        if len(prompt_format(context, name, example).shots.encode())
        + len(example.prompt.encode())
        + len(example.response.encode())
        + TEMPLATE_TOKENS
        > tokens
    ]


def _sentence(
    context: RunContext,
    name: str,
    limit: ContextLength,
    part: str,
    examples: Sequence[Example],
    lengths: Sequence[int],
    way_out: str,
) -> Iterator[str]:
    too_long = [number for number, length in enumerate(lengths) if length > limit.tokens]
    if too_long:
        first = too_long[0]
        yield (
            f"{label(context, name)} reads at most {limit.tokens} tokens ({limit.key}), and {len(too_long)} of the "
            f"{part} examples are longer: the first ({where_read(examples[first])}) has {lengths[first]}. {way_out}, or "
            "take a model that reads more."
        )
