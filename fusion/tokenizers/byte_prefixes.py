"""Text -> tokens that are nothing but text, and the place of each in the bytes of the text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from transformers import PreTrainedTokenizerBase

from fusion.tokenizers.token_bytes import (
    backend_tokenizer,
    cached_per_tokenizer,
    control_tokens,
    tokenizer_name,
    unk_token_id,
    vocabulary_bytes,
)

CharSpan = tuple[int, int]
"""First character and end of the piece of a text that a token was made from."""


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text as nothing but text: no token is added, and none comes out that steers the model.

    Raises ValueError for a control token that the tokenizer's model makes out of plain text and cannot write otherwise.
    """
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
    )["input_ids"]  # type: ignore[assignment]
    control = _control_texts(tokenizer).keys()
    return [
        row if control.isdisjoint(row) else _ids_and_spans(tokenizer, text)[0]
        for row, text in zip(ids, texts, strict=True)
    ]


def byte_prefixes(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int]:
    """Bytes of `text` before each of its tokens `ids`, and all its bytes at the end: one entry more than tokens.

    Tokens that spell the text exactly are walked byte by byte, and every boundary is true, within characters too. A
    space that the tokenizer put before the first word counts as nothing. Other tokens are placed by their character
    offsets, with -1 where a token begins inside a character or inside what the token before it covers.

    Raises ValueError when the offsets do not follow the text either.
    """
    table, raw = vocabulary_bytes(tokenizer), text.encode()
    spelled = [table[index] for index in ids]
    written = b"".join(piece or b"" for piece in spelled)
    if None not in spelled and written in (raw, b" " + raw):
        added = len(written) - len(raw)
        return [max(0, end - added) for end in accumulate((len(piece or b"") for piece in spelled), initial=0)]
    return _prefixes_from_offsets(tokenizer, ids, text)


def _prefixes_from_offsets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int]:
    """`byte_prefixes` from the character offsets of a fast tokenizer."""
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
        # a gap is text that the normaliser dropped; but where a space was trimmed from the offsets, the place is false
        trimmed = (table[index] or b"").startswith(b" ") and text[start : start + 1] not in (" ", "\u2581")
        prefixes.append(begins[start] if start == covered or (start > covered and not trimmed) else -1)
        covered = end
    return [*prefixes, begins[-1]]


def _ids_and_spans(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[CharSpan]]:
    """The ids of a text and the span of each; control tokens are written out in letters."""
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
    """Control token `token`, found in a text at `start` to `end`, letter by letter: an id and a span for each."""
    model, placed = backend_tokenizer(tokenizer), []
    first = end - len(token)  # a space put before it belongs to its first letter
    for place, letter in enumerate(token, start=first):
        pieces = [letter] if model.token_to_id(letter) is not None else [f"<0x{byte:02X}>" for byte in letter.encode()]
        ids = [model.token_to_id(piece) for piece in pieces]
        ids = [unk_token_id(tokenizer)] if None in ids else ids
        if None in ids:
            raise ValueError(
                f"{tokenizer_name(tokenizer)}: the text holds the control token {token!r}, and there are no tokens to write it "
                "as text. Take it out of the example."
            )
        placed += [(index, (start if place == first else place, place + 1)) for index in ids]
    return placed


@cached_per_tokenizer
def _control_texts(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Id -> how it is written, of each control token; the unknown token aside, which any text may give."""
    return {index: token for token, index in control_tokens(tokenizer).items() if index != unk_token_id(tokenizer)}


def _shorten(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:60]}... ({len(shown)} characters)"
