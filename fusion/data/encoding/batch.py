"""Encode many conversations at once, with the tokenizer's own threads: exactly what `encode` gives for each.

What most examples need is done for all together. Whatever is out of the ordinary in one (a control token spelled in a message,
a response that its tokens do not spell, white space that a template takes away) is left to the functions that `encode` itself
is made of. Where anything is refused, `encode` reads the examples one by one, so that the first that it refuses is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from fusion.data.answer_end import end_of_turn
from fusion.data.chat_tokens import Prompt, context_ids, control_pattern, response_ids
from fusion.data.encode import Encoded, encode, encode_prompt, plain_prompt, prompt_of, refuse_stops
from fusion.data.encoding.encoded_texts import Array, EncodedTexts
from fusion.data.encoding.rendered_prompts import RenderedPrompt, RenderedPrompts
from fusion.data.prompt_format import Message, PromptFormat
from fusion.tokenizers import byte_prefixes, cached_per_tokenizer, token_ids, tokenize, vocabulary_bytes

CHUNK = 1024
"""Examples that are encoded together: enough for the threads, and little memory."""


class Conversation(NamedTuple):
    """One example as one model reads it."""

    messages: Sequence[Message]
    response: str
    prompt_format: PromptFormat
    origin: str = ""
    """Where it was read, for messages."""

    def refused(self, error: ValueError) -> ValueError:
        """Return the error with the place where the conversation was read, if that is known."""
        return ValueError(f"{self.origin}: {error}" if self.origin else str(error))


def encode_batch(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], max_length: int | None = None
) -> EncodedTexts:
    """Return `encode` of each conversation, with all tokens of the batch in flat arrays.

    Raises ValueError as `encode` does, for the first conversation that it refuses, with the place where that was read.
    """
    return EncodedTexts.cat(list(encoded_chunks(tokenizer, conversations, max_length)))


def encoded_chunks(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], max_length: int | None = None
) -> Iterator[EncodedTexts]:
    """Yield `encode_batch` some `CHUNK` conversations at a time."""
    for begin in range(0, len(conversations), CHUNK):
        part = conversations[begin : begin + CHUNK]
        try:
            yield _encode_together(tokenizer, part, max_length)
        except ValueError:
            yield EncodedTexts.from_texts(_encode_one(tokenizer, each, max_length) for each in part)


def encode_prompt_batch(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> list[Prompt]:
    """Return `encode_prompt` of each conversation; their responses are not looked at.

    Raises ValueError as `encode_prompt` does, for the first that it refuses, with the place where that was read.
    """
    found: list[Prompt] = []
    for begin in range(0, len(conversations), CHUNK):
        part = conversations[begin : begin + CHUNK]
        try:
            messages = [each.messages for each in part]
            forms = [each.prompt_format.for_prompt(each.messages) for each in part]
            found += _prompts(tokenizer, messages, [""] * len(part), forms)
        except ValueError:
            found += [_encode_one_prompt(tokenizer, each) for each in part]
    return found


def _encode_one(tokenizer: PreTrainedTokenizerBase, each: Conversation, max_length: int | None) -> Encoded:
    try:
        return encode(tokenizer, each.messages, each.response, prompt_format=each.prompt_format, max_length=max_length)
    except ValueError as error:
        raise each.refused(error) from error


def _encode_one_prompt(tokenizer: PreTrainedTokenizerBase, each: Conversation) -> Prompt:
    try:
        return encode_prompt(tokenizer, each.messages, prompt_format=each.prompt_format)
    except ValueError as error:
        raise each.refused(error) from error


def _encode_together(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], max_length: int | None
) -> EncodedTexts:
    """Return the texts of all; raises ValueError where `encode` refuses one, but not always for the first."""
    forms = [each.prompt_format.for_prompt(each.messages) for each in conversations]
    for form, each in zip(forms, conversations, strict=True):
        if form.stop:
            refuse_stops(tokenizer, each.response, form)
    prompts = _prompts(tokenizer, [each.messages for each in conversations], [c.response for c in conversations], forms)
    if max_length is not None and any(len(prompt.ids) >= max_length for prompt in prompts):
        raise ValueError(f"a prompt leaves no room within {max_length} tokens")
    answers = _answers(tokenizer, prompts, [each.response for each in conversations])
    known = {form: end_of_turn(tokenizer, form) for form in dict.fromkeys(forms)}
    ends: list[list[int]] = [[] if (end := known[form]) is None else [end] for form in forms]
    texts = [prompt.ids + answer.ids + end for prompt, answer, end in zip(prompts, answers, ends, strict=True)]
    return _in_arrays(tokenizer, texts, [len(prompt.ids) for prompt in prompts], answers, max_length)


def _prompts(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Sequence[Message]],
    responses: Sequence[str],
    forms: Sequence[PromptFormat],
) -> list[Prompt]:
    """Return the prompt of each, after the checks of `prompt_of` with its response."""
    rendering = RenderedPrompts(tokenizer)
    drafts = [rendering.draft(*each) for each in zip(messages, responses, forms, strict=True)]
    rendered = [draft.text for draft in drafts if isinstance(draft, RenderedPrompt)]
    chat_ids = iter(token_ids(tokenizer, rendered))
    plain_ids = iter(tokenize(tokenizer, [draft for draft in drafts if isinstance(draft, str)]))
    return [
        Prompt(next(chat_ids), draft.lead, draft.context)
        if isinstance(draft, RenderedPrompt)
        else plain_prompt(tokenizer, next(plain_ids))
        if isinstance(draft, str)
        else prompt_of(tokenizer, messages[number], forms[number], responses[number])
        for number, draft in enumerate(drafts)
    ]


class _ResponseTokens(NamedTuple):
    """The tokens of a response, and what is known of their bytes."""

    ids: list[int]
    added: int = 0
    """Bytes of a space before the first token that is not in the response."""
    prefixes: list[int] | None = None
    """As `byte_prefixes` finds them; None where the bytes of the tokens are the response behind `added`."""


def _answers(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]
) -> list[_ResponseTokens]:
    """Return the tokens of each response as `response_ids` finds them: behind the context of its prompt, or alone."""
    pattern = control_pattern(tokenizer)
    together = [
        prompt.context + prompt.lead + response
        if prompt.context is not None and response and not pattern.search(prompt.lead + response)
        else None
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    joint = iter(token_ids(tokenizer, [text for text in together if text is not None]))
    alone = iter(tokenize(tokenizer, [r for r, text in zip(responses, together, strict=True) if text is None]))
    spelled = _spellings(tokenizer).__getitem__
    answers = []
    for prompt, response, text in zip(prompts, responses, together, strict=True):
        front = [] if text is None or prompt.context is None else context_ids(tokenizer, prompt.context)
        whole = next(alone if text is None else joint)
        ids, raw = whole[len(front) :], response.encode()
        found = b"".join(map(spelled, ids))
        if (
            found in (raw, b" " + raw)
            if text is None
            else whole[: len(front)] == front and found == prompt.lead.encode() + raw
        ):
            answers.append(_ResponseTokens(ids, len(found) - len(raw)))
        else:
            ids = ids if text is None else response_ids(tokenizer, prompt, response)
            answers.append(_ResponseTokens(ids, prefixes=byte_prefixes(tokenizer, ids, response)))
    return answers


def _in_arrays(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[list[int]],
    prompt_lengths: Sequence[int],
    answers: Sequence[_ResponseTokens],
    max_length: int | None,
) -> EncodedTexts:
    """Return the texts, cut at `max_length` tokens, with the prefix of each row."""
    whole, starts = np.array([len(text) for text in texts], np.int64), np.array(prompt_lengths, np.int32)
    lengths = whole if max_length is None else np.minimum(whole, max_length)
    ids = np.fromiter(chain.from_iterable(text[:max_length] for text in texts), np.int32, int(lengths.sum()))
    rows, ends = lengths - starts, lengths.cumsum()
    position = np.arange(len(ids)) - np.repeat(ends - lengths, lengths)
    size = _token_sizes(tokenizer)[ids[position >= np.repeat(starts, lengths)]]
    first, before = rows.cumsum() - rows, size.cumsum() - size  # the first row of each text; bytes before each row
    added = np.array([answer.added for answer in answers], np.int64)
    prefixes = np.maximum(0, before - np.repeat(before[first] + added, rows)).astype(np.int32)
    for begin, count, answer in zip(first.tolist(), rows.tolist(), answers, strict=True):
        if answer.prefixes is not None:
            prefixes[begin : begin + count] = answer.prefixes[:count]
    return EncodedTexts(ids, prefixes, ends, starts, lengths < whole)


@cached_per_tokenizer
def _spellings(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """Return the bytes of each token, and a byte that no text has for one without bytes."""
    return [piece or b"\xff" for piece in vocabulary_bytes(tokenizer)]


@cached_per_tokenizer
def _token_sizes(tokenizer: PreTrainedTokenizerBase) -> Array:
    """Return the number of bytes of each token, int64."""
    return np.array([len(piece or b"") for piece in vocabulary_bytes(tokenizer)], np.int64)
