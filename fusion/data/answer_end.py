"""The token that ends an answer: what is trained and read behind a response, and where generation stops."""

from __future__ import annotations

import dataclasses

from transformers import PreTrainedTokenizerBase

from fusion.data.chat_template import find_answer, uses_chat_template
from fusion.data.chat_tokens import control_id, control_pattern
from fusion.data.prompt_format import PromptFormat
from fusion.tokenizers import (
    byte_prefixes,
    cached_per_tokenizer,
    control_tokens,
    tokenize,
    tokenizer_name,
    vocabulary_bytes,
)


def end_of_turn(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PromptFormat()) -> int | None:  # noqa: B008
    """Return the id that ends an answer, in training and reading: the first `stop`, else the template's end of turn, else eos.

    The end of turn is the first control token that the template puts after an answer. None where there is no such token. Raises
    ValueError as `encode_prompt`.
    """
    known = _known_ends(tokenizer)
    if prompt_format not in known:
        known[prompt_format] = _end(tokenizer, prompt_format)
    return known[prompt_format]


@cached_per_tokenizer
def _known_ends(tokenizer: PreTrainedTokenizerBase) -> dict[PromptFormat, int | None]:
    """The end of answers by prompt format: the same for all examples."""
    return {}


def _end(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> int | None:
    if prompt_format.stop:
        return _first_id(tokenizer, prompt_format.stop[0])
    if uses_chat_template(tokenizer, prompt_format):
        after = find_answer(tokenizer, [{"role": "user", "content": "?"}], prompt_format).after
        if control := control_pattern(tokenizer).search(after):
            return control_id(tokenizer, control[0])
    return tokenizer.eos_token_id  # type: ignore[return-value]


def token_of_text(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Return the id of the token that is this text where it follows other text; None where it takes several."""
    index = _first_id(tokenizer, text)
    whole = text in control_tokens(tokenizer) or vocabulary_bytes(tokenizer)[index] == text.encode()
    return index if whole else None


def trained_ends(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> list[int]:
    """Return the ids that end answers in this format: the end of turn, and those of `stop` that are one token."""
    ids: list[int | None] = [
        *prompt_format.stop_ids,
        *(token_of_text(tokenizer, text) for text in prompt_format.stop_texts),
    ]
    ids.append(end_of_turn(tokenizer, dataclasses.replace(prompt_format, stop=())))
    return sorted({id for id in ids if id is not None})


def stop_event(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> list[int]:
    """Return every id that says that the answer is over: `trained_ends`, eos, and tokens that begin with a text of `stop`.

    To a model whose answers end at a line break the token of two line breaks says the same.
    """
    found = {*trained_ends(tokenizer, prompt_format)}
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)  # type: ignore[arg-type]
    if texts := tuple(text.encode() for text in prompt_format.stop_texts):
        table = vocabulary_bytes(tokenizer)
        found |= {index for index, word in enumerate(table) if word and word.startswith(texts)}
    return sorted(found)


def _first_id(tokenizer: PreTrainedTokenizerBase, stop: int | str) -> int:
    """Return the id with which a text at which answers end begins, as it follows other text."""
    if isinstance(stop, int):
        size = len(vocabulary_bytes(tokenizer))
        if stop >= size:
            raise ValueError(f"{tokenizer_name(tokenizer)}: stop names the id {stop}; ids go from 0 to {size - 1}.")
        return stop
    if stop in control_tokens(tokenizer):
        return control_tokens(tokenizer)[stop]
    ids = tokenize(tokenizer, ["a" + stop])[0]
    begins = byte_prefixes(tokenizer, ids, "a" + stop)
    return ids[begins.index(1)] if 1 in begins else tokenize(tokenizer, [stop])[0][0]
