"""Encode examples with a tokenizer: token ids, where the response begins, and the byte prefix of each response token.

The response is tokenised by itself after a prompt that ends where generation would begin. So the first row always has the
prefix 0, and training, extraction and generation use the same prompt ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from transformers import PreTrainedTokenizerBase

from fusion.tokenizers import byte_prefixes, cached_per_tokenizer, control_tokens, tokenize, tokenizer_name

Message = dict[str, str]
"""One turn of a conversation: its `role` and its `content`."""

Template = Literal["auto", "chat", "plain"]
"""How a prompt is rendered: by the chat template, as plain text, or by the template where there is one (auto)."""

_SENTINEL = "\ue000{}\ue001"  # private use: letters that no template looks at


@dataclass(frozen=True)
class Encoded:
    """One example in the tokens of one model.

    Row r is read at sequence position `start - 1 + r` and predicts `input_ids[start + r]`. The last row of a whole example
    predicts the end of turn, where the tokenizer has a token for it.
    """

    input_ids: list[int]
    """Prompt, response, end of turn."""
    start: int
    """Index in `input_ids` of the first response token; at least 1, so that this token has a row too."""
    prefix: list[int]
    """UTF-8 bytes of the response before each row's token: 0 first, non-decreasing; -1 where it is unknown."""
    truncated: bool
    """Whether the end was cut off at the maximum length."""

    @property
    def num_rows(self) -> int:
        """Number of rows: response tokens, end of turn included."""
        return len(self.input_ids) - self.start


def truncate_rows(text: Encoded, rows: int) -> Encoded:
    """Return the text cut after `rows` rows, if it has more."""
    end = text.start + min(rows, text.num_rows)
    return Encoded(
        text.input_ids[:end], text.start, text.prefix[:rows], truncated=text.truncated or end < len(text.input_ids)
    )


def encode(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    response: str,
    *,
    template: Template = "auto",
    max_length: int | None = None,
) -> Encoded:
    """Return the token ids of prompt, response and end of turn, cut at `max_length` tokens, with the prefix of each row.

    Strings such as `</s>` in a message or in the response are text and never become control tokens. Prefixes are
    those of `byte_prefixes`: exact within characters where the tokens' bytes are the text; where the tokenizer changes the
    text (normalisation, unknown characters), from character offsets, with -1 inside a changed piece.

    Raises ValueError when the prompt leaves no room for a response token, or when offsets cannot be found.
    """
    prompt = encode_prompt(tokenizer, messages, template=template)
    if max_length is not None and len(prompt) >= max_length:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: the prompt takes {len(prompt)} tokens, which leaves no room for a response within "
            f"max_length = {max_length}. Raise max_length or drop the example."
        )
    ids = tokenize(tokenizer, [response])[0]
    prefix = byte_prefixes(tokenizer, ids, response)
    end = end_of_turn(tokenizer, template if messages else "plain")
    tokens = prompt + ids + ([] if end is None else [end])
    rows = len(tokens[:max_length]) - len(prompt)
    return Encoded(tokens[:max_length], len(prompt), prefix[:rows], truncated=len(prompt) + rows < len(tokens))


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, template: Template = "auto"
) -> list[int]:
    """Return the ids before a response, at least one; generation starts from the same ids.

    `chat` renders the messages with the tokenizer's chat template and opens the assistant's turn. `plain` joins their
    contents with line breaks, behind the tokenizer's own opening tokens. Without messages the prompt is always plain.

    Raises ValueError for `chat` without a chat template, and where there is no token at all to begin with.
    """
    if uses_chat_template(tokenizer, messages, template):
        return _chat_prompt(tokenizer, messages)
    text = "\n".join(message["content"] for message in messages)
    ids = _bos_ids(tokenizer) + tokenize(tokenizer, [text])[0]
    if ids:
        return ids
    bos, eos = _special_id(tokenizer, "bos_token_id"), _special_id(tokenizer, "eos_token_id")
    first = eos if bos is None else bos
    if first is None:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: an empty prompt needs a token to begin with, and this tokenizer has neither a "
            "bos_token nor an eos_token. Set one, or give every example a prompt."
        )
    return [first]


def uses_chat_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template: Template = "auto"
) -> bool:
    """Return whether these messages are rendered by the tokenizer's chat template. Raises ValueError for `chat` without one."""
    return bool(messages) and _template_applies(tokenizer, template)


@cached_per_tokenizer
def _bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens that a tokenizer puts before every text (BOS), without those it puts after it."""
    encoding = tokenizer("a", return_special_tokens_mask=True)
    return [
        index
        for index, _ in takewhile(
            lambda pair: pair[1], zip(encoding["input_ids"], encoding["special_tokens_mask"], strict=True)
        )
    ]


def _template_applies(tokenizer: PreTrainedTokenizerBase, template: Template) -> bool:
    if template == "chat" and not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer_name(tokenizer)} has no chat template; set template to plain or auto, or give it one."
        )
    return template != "plain" and bool(tokenizer.chat_template)


def _chat_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    pattern = _control_pattern(tokenizer)
    if any(pattern.search(message["content"]) for message in messages):
        return _chat_prompt_with_literals(tokenizer, messages)
    return tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)  # type: ignore[return-value]


def _chat_prompt_with_literals(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Render a chat whose contents spell control tokens: only those that the template wrote become special ids.

    The text between two of the template's control tokens is tokenised as one piece, contents and all, as the ordinary
    path does. Only a tokenizer that puts a space before the first word of a whole text, and not of each piece, gets
    that space here once a piece.
    """
    ids: list[int] = []
    text = ""
    for part, is_control in _rendered_parts(tokenizer, messages):
        if is_control:
            ids += [*tokenize(tokenizer, [text])[0], _control_id(tokenizer, part)]
            text = ""
        else:
            text += part
    return ids + tokenize(tokenizer, [text])[0]


def _rendered_parts(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
    """Yield the rendered prompt in order: text of template or content (False), and control tokens of the template (True)."""
    contents = {_SENTINEL.format(n): message["content"] for n, message in enumerate(messages)}
    marked = [{**message, "content": mark} for message, mark in zip(messages, contents, strict=True)]
    pieces = re.split(f"({'|'.join(contents)})", _render(tokenizer, marked))
    rendered = _render(tokenizer, messages)
    if "".join(contents.get(piece, piece) for piece in pieces) != rendered:
        contents = {mark: content.strip() for mark, content in contents.items()}  # many templates trim
    if "".join(contents.get(piece, piece) for piece in pieces) != rendered:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: a message spells a control token, and the chat template changes the messages, so "
            "the two cannot be told apart. Take the control token out of the message, or set template to plain."
        )
    for piece in pieces:
        if piece in contents:
            yield contents[piece], False
        else:
            yield from ((part, n % 2 == 1) for n, part in enumerate(_control_pattern(tokenizer).split(piece)))


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, generate: bool = True) -> str:
    return tokenizer.apply_chat_template(list(messages), add_generation_prompt=generate, tokenize=False)  # type: ignore[return-value]


@cached_per_tokenizer
def _control_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return a pattern of one group that matches any control token, longest first, with the white space that it strips."""
    added = tokenizer.added_tokens_decoder

    def pattern(text: str, index: int) -> str:
        left, right = (r"\s*" if getattr(added.get(index), side, False) else "" for side in ("lstrip", "rstrip"))
        return left + re.escape(text) + right

    longest_first = sorted(control_tokens(tokenizer).items(), key=lambda token: -len(token[0]))
    return re.compile(f"({'|'.join(pattern(*token) for token in longest_first)})" if longest_first else r"((?!))")


def _control_id(tokenizer: PreTrainedTokenizerBase, matched: str) -> int:
    table = control_tokens(tokenizer)
    return table[matched if matched in table else matched.strip()]  # without the white space that it stripped


def _special_id(tokenizer: PreTrainedTokenizerBase, role: Literal["bos_token_id", "eos_token_id"]) -> int | None:
    return getattr(tokenizer, role)  # typed too widely in transformers


def end_of_turn(tokenizer: PreTrainedTokenizerBase, template: Template = "auto") -> int | None:
    """Return the id that ends an assistant's turn: the first control token that the template puts after it, else eos, or None.

    Raises ValueError for `chat` without a chat template, and for a template that leaves the message out.
    """
    if not _template_applies(tokenizer, template):
        return _special_id(tokenizer, "eos_token_id")
    mark = _SENTINEL.format("answer")
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
    _, found, after = _render(tokenizer, turns, generate=False).partition(mark)
    if not found:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: its chat template leaves out the assistant's message; set it to plain."
        )
    control = _control_pattern(tokenizer).search(after)
    return _special_id(tokenizer, "eos_token_id") if control is None else _control_id(tokenizer, control[0])
