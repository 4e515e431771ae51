"""Encode examples with a tokenizer: token ids, where the response begins, and the byte prefix of each response token.

The prompt is what the chat template writes before an answer, and the response is tokenised as it follows that text. So the
first row always has the prefix 0, training, extraction and generation use the same prompt ids, and prompt, response and end
are the tokens of what the template itself renders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from fusion.data.answer_end import end_of_turn
from fusion.data.chat_fields import has_fields, refuse_lost_fields
from fusion.data.chat_template import check_answer, find_answer, uses_chat_template
from fusion.data.chat_tokens import Prompt, chat_prompt, response_ids
from fusion.data.prompt_format import Message, PromptFormat
from fusion.tokenizers import byte_prefixes, cached_per_tokenizer, tokenize, tokenizer_name


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
    prompt_format: PromptFormat = PromptFormat(),  # noqa: B008  (immutable)
    max_length: int | None = None,
) -> Encoded:
    """Return the token ids of prompt, response and end of turn, cut at `max_length` tokens, with the prefix of each row.

    Strings such as `</s>` in a message or in the response are text and never become control tokens. Prefixes are
    those of `byte_prefixes`: exact within characters where the tokens' bytes are the text; where the tokenizer changes the
    text (normalisation, unknown characters), from character offsets, with -1 inside a changed piece.

    Raises ValueError when the prompt leaves no room for a response token, when offsets cannot be found, when the chat template
    renders the conversation as something else than this prompt, response and end, and for a response that holds a text at which
    answers end.
    """
    prompt_format = prompt_format.for_prompt(messages)
    refuse_stops(tokenizer, response, prompt_format)
    prompt = prompt_of(tokenizer, messages, prompt_format, response)
    if max_length is not None and len(prompt.ids) >= max_length:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: the prompt takes {len(prompt.ids)} tokens, which leaves no room for a response "
            f"within max_length = {max_length}. Raise max_length or drop the example."
        )
    ids = response_ids(tokenizer, prompt, response)
    prefix = byte_prefixes(tokenizer, ids, response)
    end = end_of_turn(tokenizer, prompt_format)
    tokens = prompt.ids + ids + ([] if end is None else [end])
    rows = len(tokens[:max_length]) - len(prompt.ids)
    return Encoded(tokens[:max_length], len(prompt.ids), prefix[:rows], truncated=len(prompt.ids) + rows < len(tokens))


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    prompt_format: PromptFormat = PromptFormat(),  # noqa: B008
) -> Prompt:
    """Return the tokens before a response, at least one; generation starts from the same ids.

    `chat` renders the messages with the tokenizer's chat template and opens the assistant's turn. `plain` joins their
    contents with line breaks, behind the tokenizer's own opening tokens. Without messages the prompt is always plain.

    Raises ValueError for `chat` without a chat template, where there is no token at all to begin with, and as `find_answer`.
    """
    return prompt_of(tokenizer, messages, prompt_format.for_prompt(messages), None)


def tokens_digest(texts: Iterable[Encoded]) -> str:
    """Return a hash of the tokens of a set of texts, whatever their order: other prompts, ends or cuts make another hash."""
    each = {hashlib.sha256(f"{text.start} {text.input_ids}".encode()).hexdigest() for text in texts}
    return hashlib.sha256("".join(sorted(each)).encode()).hexdigest()[:16]


def refuse_stops(tokenizer: PreTrainedTokenizerBase, response: str, prompt_format: PromptFormat) -> None:
    """Raise ValueError for a response that holds a text at which answers end."""
    if inside := [stop for stop in prompt_format.stop_texts if stop in response]:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: answers end at {inside[0]!r} (stop), and the response that begins {response[:60]!r} "
            "goes on behind it. Choose another stop, or leave the example out."
        )


def prompt_of(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt_format: PromptFormat, response: str | None
) -> Prompt:
    """Return the prompt; with a response, after a check that the template renders the two as they are learned."""
    if has_fields(messages, prompt_format):
        refuse_lost_fields(tokenizer, prompt_format.prepare(messages), prompt_format)
    if not messages or not uses_chat_template(tokenizer, prompt_format):
        text = plain_text(messages, prompt_format)
        return plain_prompt(tokenizer, tokenize(tokenizer, [text])[0])
    messages = prompt_format.prepare(messages)
    place = find_answer(tokenizer, messages, prompt_format)
    if response:
        check_answer(tokenizer, messages, response, place, prompt_format)
    return chat_prompt(tokenizer, messages, place, prompt_format)


def plain_text(messages: Sequence[Message], prompt_format: PromptFormat) -> str:
    """Return a prompt without a template: the contents of the messages, a line each."""
    prepared = prompt_format.prepare(messages) if messages else []
    return "\n".join(message["content"] for message in prepared) + (prompt_format.answer_prefix or "")


def plain_prompt(tokenizer: PreTrainedTokenizerBase, text_ids: Sequence[int]) -> Prompt:
    """Return the prompt that a plain text of these ids is, behind the tokenizer's own opening tokens."""
    ids = [*_bos_ids(tokenizer), *text_ids]
    if ids:
        return Prompt(ids)
    first: int | None = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id  # type: ignore[assignment]
    if first is None:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: an empty prompt needs a token to begin with, and this tokenizer has neither a "
            "bos_token nor an eos_token. Set one, or give every example a prompt."
        )
    return Prompt([first])


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
