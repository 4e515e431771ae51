"""What a conversation holds besides roles and contents (calls of tools, the tools, thoughts), and whether a prompt has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from fusion.data.chat_template import all_templates, render, uses_chat_template
from fusion.data.chat_tokens import control_pattern
from fusion.data.prompt_format import Message, PromptFormat
from fusion.data.reading.conversations import SHOWN, THOUGHTS
from fusion.tokenizers import tokenizer_name

_ALWAYS = ("role", "content")


def has_fields(messages: Sequence[Message], prompt_format: PromptFormat) -> bool:
    """Return whether a conversation holds more than roles and contents."""
    return bool(prompt_format.tools) or any(len(message) > len(_ALWAYS) for message in messages)


def refuse_lost_fields(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt_format: PromptFormat
) -> None:
    """Raise ValueError where a call, a thought or a tool would be lost, or would come out as control tokens.

    Messages are already prepared. A template that reads thoughts decides itself which of them it writes: most leave out those
    of earlier turns.
    """
    for field, less, format_less in _without_each(messages, prompt_format):
        if not uses_chat_template(tokenizer, prompt_format):
            raise _lost(tokenizer, field, "a plain prompt has no place for")
        if field in THOUGHTS and _reads(all_templates(tokenizer), field):
            continue
        whole = render(tokenizer, messages, prompt_format, generate=True)
        if whole == _rendered(tokenizer, less, format_less):
            raise _lost(tokenizer, field, "its chat template leaves out")
    said = [message[field] for message in messages for field in SHOWN if message.get(field)]
    if control := control_pattern(tokenizer).search(json.dumps([*said, *prompt_format.tools], ensure_ascii=False)):
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: a tool or a call of one spells the control token {control[0]!r}, which would steer "
            "the model. Take it out, or leave the example out."
        )


def _reads(template: str, field: str) -> bool:
    """Return whether a template looks at a field of messages, and not at a variable or a word of that name."""
    return re.search(rf"""\.{field}\b|(['"]){field}\1""", template) is not None


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt_format: PromptFormat
) -> str | None:
    """Return what the template writes; None where it refuses messages without the field, and so reads it."""
    try:
        return render(tokenizer, messages, prompt_format, generate=True)
    except ValueError:
        return None


def _without_each(
    messages: Sequence[Message], prompt_format: PromptFormat
) -> Iterator[tuple[str, list[Message], PromptFormat]]:
    """Yield each kind of field that there is, and the conversation without it."""
    for field in SHOWN:
        if any(message.get(field) for message in messages):
            yield field, [{k: v for k, v in message.items() if k != field} for message in messages], prompt_format
    if prompt_format.tools:
        yield "tools", list(messages), replace(prompt_format, tools=())


def _lost(tokenizer: PreTrainedTokenizerBase, field: str, how: str) -> ValueError:
    return ValueError(
        f"{tokenizer_name(tokenizer)}: {how} the {field} of a conversation. Leave such rows out, write them into the contents, "
        "or give the model a chat template that writes them."
    )
