"""Tokens of a rendered chat: its prompt, and a response as it follows the prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from fusion.data.chat_template import AnswerPlace, find_answer
from fusion.data.prompt_format import Message, PromptFormat
from fusion.tokenizers import cached_per_tokenizer, control_tokens, tokenize, tokenizer_name, vocabulary_bytes

_CONTENT = "\ue000{}\ue001"  # private use: letters that no template looks at


class Prompt(NamedTuple):
    """The tokens before a response."""

    ids: list[int]
    lead: str = ""
    """A space that belongs to the first token of the response, where the chat template writes one before it."""
    context: str | None = None
    """The last control token of a rendered chat and the text behind it; None for a plain prompt."""


def chat_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], place: AnswerPlace, prompt_format: PromptFormat
) -> Prompt:
    """Return the tokens of a rendered prompt. Contents that spell control tokens give none."""
    context = prompt_context(tokenizer, place.prompt)
    if any(control_pattern(tokenizer).search(message["content"]) for message in messages):
        return Prompt(_ids_with_literals(tokenizer, messages, place, prompt_format), place.lead, context)
    return Prompt(_rendered_ids(tokenizer, place.prompt), place.lead, context)


def prompt_context(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return the last control token of a rendered prompt and the text behind it; all of it where there is none."""
    *_, last = [(0, 0), *(match.span() for match in control_pattern(tokenizer).finditer(prompt))]
    return prompt[last[0] :]


def _rendered_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of rendered text, in which control tokens are what they spell."""
    return tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]  # type: ignore[return-value]


def response_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str) -> list[int]:
    """Return the tokens of a response as it follows its prompt, where these spell it; else as a text of its own.

    A SentencePiece tokenizer puts a space before a text, and puts none before what follows other text. Where a token would
    reach across the border of prompt and response (two line breaks in one token), the response begins a token of its own.
    """
    text = prompt.lead + response
    if prompt.context is not None and response and not control_pattern(tokenizer).search(text):
        control = control_pattern(tokenizer).match(prompt.context)
        for before in dict.fromkeys([prompt.context, control[0] if control else ""]):
            front = context_ids(tokenizer, before)
            joint = _rendered_ids(tokenizer, before + text)
            if joint[: len(front)] == front and _spelled(tokenizer, joint[len(front) :]) == text.encode():
                return joint[len(front) :]
    return tokenize(tokenizer, [response])[0]


def context_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of the text before responses, which are kept: a template writes few."""
    known = _known_contexts(tokenizer)
    if text not in known:
        known[text] = _rendered_ids(tokenizer, text)
    return known[text]


@cached_per_tokenizer
def _known_contexts(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """The tokens of the few texts that a template writes before answers."""
    return {}


def _spelled(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bytes:
    table = vocabulary_bytes(tokenizer)
    return b"".join(table[index] or b"\xff" for index in ids)  # a byte that no text has


def _ids_with_literals(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], place: AnswerPlace, prompt_format: PromptFormat
) -> list[int]:
    """Return the tokens of a chat whose contents spell control tokens: only those that the template wrote become special ids.

    The text between two of the template's control tokens is tokenised as one piece, contents and all, as the ordinary
    path does. Only a tokenizer that puts a space before the first word of a whole text, and not of each piece, gets
    that space here once a piece.
    """
    ids: list[int] = []
    text = ""
    for part, is_control in _rendered_parts(tokenizer, messages, place, prompt_format):
        if is_control:
            ids += [*tokenize(tokenizer, [text])[0], control_id(tokenizer, part)]
            text = ""
        else:
            text += part
    return ids + tokenize(tokenizer, [text])[0]


def _rendered_parts(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], place: AnswerPlace, prompt_format: PromptFormat
) -> Iterator[tuple[str, bool]]:
    """Yield the rendered prompt in order: text of template or content (False), and control tokens of the template (True)."""
    contents = {_CONTENT.format(n): message["content"] for n, message in enumerate(messages)}
    marked = [{**message, "content": mark} for message, mark in zip(messages, contents, strict=True)]
    pieces = re.split(f"({'|'.join(contents)})", find_answer(tokenizer, marked, prompt_format).prompt)
    if "".join(contents.get(piece, piece) for piece in pieces) != place.prompt:
        contents = {mark: content.strip() for mark, content in contents.items()}  # many templates trim
    if "".join(contents.get(piece, piece) for piece in pieces) != place.prompt:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: a message spells a control token, and the chat template changes the messages, so "
            "the two cannot be told apart. Take the control token out of the message, or set template to plain."
        )
    for piece in pieces:
        if piece in contents:
            yield contents[piece], False
        else:
            yield from ((part, n % 2 == 1) for n, part in enumerate(control_pattern(tokenizer).split(piece)))


@cached_per_tokenizer
def control_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return a pattern of one group that matches any control token, longest first, with the white space that it strips."""
    added = tokenizer.added_tokens_decoder

    def pattern(text: str, index: int) -> str:
        left, right = (r"\s*" if getattr(added.get(index), side, False) else "" for side in ("lstrip", "rstrip"))
        return left + re.escape(text) + right

    longest_first = sorted(control_tokens(tokenizer).items(), key=lambda token: -len(token[0]))
    return re.compile(f"({'|'.join(pattern(*token) for token in longest_first)})" if longest_first else r"((?!))")


def control_id(tokenizer: PreTrainedTokenizerBase, matched: str) -> int:
    """Return the id of a control token that `control_pattern` matched."""
    table = control_tokens(tokenizer)
    return table[matched if matched in table else matched.strip()]  # without the white space that it stripped
