"""How each model of a run reads each example: its prompt format, its messages, its tokens."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fusion.config import SourceSettings
from fusion.data.encode import Encoded, encode, encode_prompt, truncate_rows
from fusion.data.encoding import Conversation, encode_prompt_batch
from fusion.data.example import Example
from fusion.data.prompt_format import Message, PromptFormat

if TYPE_CHECKING:
    from fusion.stages.context import RunContext


def prompt_format(
    context: RunContext, name: str, example: Example | None = None, messages: Sequence[Message] | None = None
) -> PromptFormat:
    """Return how a model of the run reads and ends an example; without one, how it reads examples with messages in general.

    `messages` are what it reads of the example, if not the example's own (`look_ahead`).
    """
    model = context.models[name]
    shots = model.shots_for(example.domain) if isinstance(model, SourceSettings) and example is not None else ""
    form = PromptFormat(
        template=model.template,
        chat_template_kwargs=model.chat_template_kwargs,
        answer_prefix=model.answer_prefix,
        fold_system_message=model.fold_system_message,
        shots=shots,
        stop=tuple(model.stop),
        date=context.date,
    )
    if example is None:
        return form
    if example.tools:
        form = dataclasses.replace(form, tools=example.tools)
    return form.for_prompt(example.messages if messages is None else messages, example.template)


def prompt_formats(context: RunContext, name: str) -> Callable[[Example, Sequence[Message]], PromptFormat]:
    """Return `prompt_format` of a model for an example and its messages, with one object for all formats that are equal."""
    known: dict[tuple[str, str | None, bool], PromptFormat] = {}

    def of(example: Example, messages: Sequence[Message]) -> PromptFormat:
        if example.tools:
            return prompt_format(context, name, example, messages)
        key = example.domain, example.template, bool(messages)
        if key not in known:
            known[key] = prompt_format(context, name, example, messages)
        return known[key]

    return of


def encode_example(
    context: RunContext, name: str, example: Example, messages: Sequence[Message], limit: int | None
) -> Encoded:
    """Return an example as tokens of one model; a response behind a longer prompt is cut where it would be behind its own.

    Raises ValueError, with the example, as `encode`.
    """
    form, tokenizer = prompt_format(context, name, example, messages), context.tokenizers[name]
    longer = form.shots or messages is not example.messages
    text = encode(tokenizer, messages, example.response, prompt_format=form, max_length=None if longer else limit)
    if not longer or limit is None:
        return text
    ordinary = dataclasses.replace(form, shots="")
    length = len(encode_prompt(tokenizer, example.messages, prompt_format=ordinary).ids)
    if length >= limit:  # refused as it is without the longer prompt
        return encode(tokenizer, example.messages, example.response, prompt_format=ordinary, max_length=limit)
    return truncate_rows(text, limit - length)


def heldout_prompts_digest(context: RunContext, name: str) -> str:
    """Return a hash of the prompts that a model reads of the held-out examples."""
    digest, formats = hashlib.sha256(), prompt_formats(context, name)
    conversations = [Conversation(e.messages, "", formats(e, e.messages), e.origin) for e in context.heldout_examples]
    for prompt in encode_prompt_batch(context.tokenizers[name], conversations):
        digest.update(f"{prompt.ids}".encode())
    return digest.hexdigest()[:16]
