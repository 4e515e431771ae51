"""Encode all examples of a run with the tokenizer of one model, or read them where they were kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from fusion.data.encode import Encoded, truncate_rows
from fusion.data.encoding import Conversation, EncodedTexts, encode_batch, encode_prompt_batch
from fusion.data.encoding.batch import CHUNK
from fusion.data.encoding.kept_texts import read_texts, write_texts
from fusion.data.example import Example
from fusion.data.prompt_format import Message, PromptFormat
from fusion.runtime import distributed
from fusion.runtime.console import bar
from fusion.stages.encodings.kept_folder import kept_folder
from fusion.stages.prompts import encode_example, prompt_formats

if TYPE_CHECKING:
    from fusion.stages.context import RunContext


def encoded_examples(context: RunContext, name: str) -> EncodedTexts:
    """Return the examples in `extracted_examples` as tokens of one model, kept before or encoded now.

    A plan writes nothing, and nothing is written before the run has a folder.
    """
    folder = kept_folder(context, name) if context.config.folder.exists() else None
    if folder is not None and (kept := read_texts(folder)) is not None:
        return kept
    parts = _encode(context, name)
    if folder is None or context.for_plan or not distributed.is_main_process():
        return EncodedTexts.cat(list(parts))
    return write_texts(folder, parts)


def encode_examples(context: RunContext, name: str, examples: Sequence[Example]) -> EncodedTexts:
    """Return any examples as tokens of one model, cut as those that are trained on; nothing is kept."""
    return EncodedTexts.cat(list(_encode_chunks(context, name, examples, lambda _: None)))


def _encode(context: RunContext, name: str) -> Iterator[EncodedTexts]:
    """Yield the texts, some `CHUNK` examples at a time."""
    examples = context.extracted_examples
    with bar(f"tokens of {name}", len(examples), "examples") as advance:
        yield from _encode_chunks(context, name, examples, advance)


def _encode_chunks(
    context: RunContext, name: str, examples: Sequence[Example], advance: Callable[[int], None]
) -> Iterator[EncodedTexts]:
    ahead, formats = context.look_ahead_prompts(name), prompt_formats(context, name)
    for begin in range(0, len(examples), CHUNK):
        part = examples[begin : begin + CHUNK]
        messages = [ahead.get(each.id, each.messages) if ahead else each.messages for each in part]
        yield _encode_part(context, name, part, messages, list(map(formats, part, messages)))
        advance(len(part))


def _encode_part(
    context: RunContext,
    name: str,
    examples: Sequence[Example],
    messages: Sequence[Sequence[Message]],
    forms: Sequence[PromptFormat],
) -> EncodedTexts:
    """Return `encode_example` of each. Raises ValueError as that, with the place where the example was read."""
    limit, tokenizer = context.config.data.max_length, context.tokenizers[name]
    rows = zip(examples, messages, forms, strict=True)
    conversations = [Conversation(said, each.response, form, each.origin) for each, said, form in rows]
    longer = [
        number
        for number, (each, said, form) in enumerate(zip(examples, messages, forms, strict=True))
        if form.shots or said is not each.messages
    ]
    if not longer:
        return encode_batch(tokenizer, conversations, limit)
    try:
        return _with_longer_prompts(context, name, examples, conversations, longer)
    except ValueError:  # which is not always that of the first
        return EncodedTexts.from_texts(
            _encode_one(context, name, each, said) for each, said in zip(examples, messages, strict=True)
        )


def _with_longer_prompts(
    context: RunContext,
    name: str,
    examples: Sequence[Example],
    conversations: Sequence[Conversation],
    longer: Sequence[int],
) -> EncodedTexts:
    """Return the texts where some have a prompt longer than their own, behind which they are cut as behind their own."""
    limit, tokenizer = context.config.data.max_length, context.tokenizers[name]
    others = sorted(set(range(len(examples))) - set(longer))
    texts: dict[int, Encoded] = dict(
        zip(others, encode_batch(tokenizer, [conversations[n] for n in others], limit), strict=True)
    )
    ordinary = functools.cache(lambda form: dataclasses.replace(form, shots=""))
    own = [Conversation(examples[n].messages, "", ordinary(conversations[n].prompt_format)) for n in longer]
    whole = encode_batch(tokenizer, [conversations[n] for n in longer])
    for number, text, prompt in zip(longer, whole, encode_prompt_batch(tokenizer, own), strict=True):
        if len(prompt.ids) >= limit:
            raise ValueError("its own prompt leaves no room")
        texts[number] = truncate_rows(text, limit - len(prompt.ids))
    return EncodedTexts.from_texts(texts[number] for number in range(len(examples)))


def _encode_one(context: RunContext, name: str, example: Example, messages: Sequence[Message]) -> Encoded:
    try:
        return encode_example(context, name, example, messages, context.config.data.max_length)
    except ValueError as error:
        raise ValueError(f"{example.origin}: {error}" if example.origin else str(error)) from error
