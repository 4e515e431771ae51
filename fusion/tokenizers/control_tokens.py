"""Which tokens steer a model: the special ones, and those that its chat template writes around messages."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fusion.tokenizers.caching import cached_per_tokenizer

_MARKS = ("\ue000\ue010", "\ue000\ue011", "\ue000\ue012")  # private use: letters that no template looks at or changes


@cached_per_tokenizer
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the tokens that steer a model and must never come out of a user's text: text of each -> its id.

    They are the special tokens, and the added tokens that the chat template writes around messages: some tokenizers do not mark
    `<|im_end|>` as special. Tokens that mark up what an assistant writes (`<think>`, `</think>`) are not among them.
    """
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return added | special | _template_tokens(tokenizer)


def _template_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the added tokens that the chat template writes around a user's and an assistant's message."""
    added = tokenizer.added_tokens_decoder.items()
    # white space is text even where a tokenizer has added tokens for it, as Gemma's for line breaks
    plain = {token.content: index for index, token in added if not token.special and not token.content.isspace()}
    if not plain or not tokenizer.chat_template:
        return {}
    pattern = re.compile("|".join(re.escape(text) for text in sorted(plain, key=len, reverse=True)))
    rendered = _conversation(tokenizer)
    written = set(pattern.findall("".join(rendered)))
    inside = set(pattern.findall(rendered[1])) if len(rendered) > 1 else set()  # between a question and its answer
    return {text: plain[text] for text in written if not (text in inside and _partner(text) in inside)}


def _conversation(tokenizer: Any) -> list[str]:
    """Return what the template writes before, between and after the messages of a conversation; nothing where it refuses."""
    turns = [{"role": role, "content": mark} for role, mark in zip(("user", "assistant", "user"), _MARKS, strict=True)]
    for messages in (turns, turns[:2], turns[:1]):
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        except (TemplateError, TypeError, ValueError):  # `encode` reports what a template refuses, with the example
            continue
        return re.split("|".join(_MARKS), text)
    return []


def _partner(text: str) -> str:
    """Return `</x>` for `<x>`, and the other way round; other texts have no partner."""
    match = re.fullmatch(r"<(/?)([^<>/]+)>", text)
    return "" if match is None else f"<{'' if match[1] else '/'}{match[2]}>"
