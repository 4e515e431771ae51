"""Tokenize text without special tokens, and find the byte offset of each token in the text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from transformers import PreTrainedTokenizerBase

from fusion.tokenizers.caching import cached_per_tokenizer
from fusion.tokenizers.control_tokens import control_tokens
from fusion.tokenizers.token_bytes import (
    backend_tokenizer,
    tokenizer_name,
    unk_token_id,
    vocabulary_bytes,
)
from fusion.tokenizers.token_ids import token_ids

CharSpan = tuple[int, int]
"""Start and end of a token in the characters of a text, as in `offset_mapping`."""


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text as plain text: no special token is added, and none comes out where the text spells one.

    Raises ValueError for a control token in the text that the vocabulary has no other tokens for.
    """
    ids = token_ids(tokenizer, texts, split_special_tokens=True)
    control = _control_texts(tokenizer).keys()
    return [
        row if control.isdisjoint(row) else _ids_and_spans(tokenizer, text)[0]
        for row, text in zip(ids, texts, strict=True)
    ]


def byte_prefixes(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int]:
    """Return the byte offset of each token `ids` of `text`, and the length of the text at the end: one entry more than tokens.

    Where the tokens' bytes are exactly the text, offsets add up token lengths and are exact within characters too; a space
    that the tokenizer put before the first word has length 0. Otherwise they come from the tokenizer's character offsets,
    with -1 where a token begins inside a character or inside the span of the token before it.

    Raises ValueError when the offsets do not follow the text either.
    """
    table, raw = vocabulary_bytes(tokenizer), text.encode()
    pieces = [table[index] for index in ids]
    joined = b"".join(piece or b"" for piece in pieces)
    if None not in pieces and joined in (raw, b" " + raw):
        added = len(joined) - len(raw)
        return [max(0, end - added) for end in accumulate((len(piece or b"") for piece in pieces), initial=0)]
    return _prefixes_from_offsets(tokenizer, ids, text)


def _prefixes_from_offsets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int]:
    """Compute `byte_prefixes` from the character offsets of a fast tokenizer."""
    table = vocabulary_bytes(tokenizer)
    again, spans = _ids_and_spans(tokenizer, text)
    if again != list(ids) or any(b[0] < a[0] or b[1] < a[1] for a, b in pairwise(spans)):
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: its tokens cannot be placed in the text {_shorten(text)}: they do not spell it, and "
            f"their offsets {_shorten(spans)} do not follow it. Leave this example out, or this model."
        )
    if len(spans) > 1 and spans[1][0] == 0 and table[ids[0]] == b" " and text[0] not in " \u2581":
        spans[0] = (0, 0)  # a space put before the text, to which the offsets give the width of the first character
    begins = list(accumulate((len(character.encode()) for character in text), initial=0))
    prefixes, covered = [], 0
    for index, (start, end) in zip(ids, spans, strict=True):
        # a gap is text that the normalizer dropped; but where a space was trimmed from the offsets, the offset is wrong
        trimmed = (table[index] or b"").startswith(b" ") and text[start : start + 1] not in (" ", "\u2581")
        prefixes.append(begins[start] if start == covered or (start > covered and not trimmed) else -1)
        covered = end
    return [*prefixes, begins[-1]]


def _ids_and_spans(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[CharSpan]]:
    """Return the ids of a text and the span of each; control tokens that the text spells are replaced by tokens of letters."""
    coded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    letters = _control_texts(tokenizer)
    placed: list[tuple[int, CharSpan]] = []
    for index, (start, end) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
        if index in letters:
            placed += _spell_control_token(tokenizer, letters[index], start, end)
        else:
            placed.append((index, (start, end)))
    return [index for index, _ in placed], [span for _, span in placed]


def _spell_control_token(
    tokenizer: PreTrainedTokenizerBase, token: str, start: int, end: int
) -> list[tuple[int, CharSpan]]:
    """Return ids and spans that spell a control token, found in a text at `start` to `end`, letter by letter."""
    model, placed = backend_tokenizer(tokenizer), []
    first = end - len(token)  # a space added before it belongs to its first letter
    for offset, letter in enumerate(token, start=first):
        pieces = [letter] if model.token_to_id(letter) is not None else [f"<0x{byte:02X}>" for byte in letter.encode()]
        ids = [model.token_to_id(piece) for piece in pieces]
        ids = [unk_token_id(tokenizer)] if None in ids else ids
        if None in ids:
            raise ValueError(
                f"{tokenizer_name(tokenizer)}: the text holds the control token {token!r}, and there are no tokens to write it "
                "as text. Take it out of the example."
            )
        placed += [(index, (start if offset == first else offset, offset + 1)) for index in ids]
    return placed


@cached_per_tokenizer
def _control_texts(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return id -> text of each control token but the unknown token, which any text may contain."""
    return {index: token for token, index in control_tokens(tokenizer).items() if index != unk_token_id(tokenizer)}


def _shorten(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:60]}... ({len(shown)} characters)"
