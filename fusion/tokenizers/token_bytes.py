"""The bytes of each token of a vocabulary; control tokens have none.

Two tokenizers can only be compared in bytes: one writes `Ġcaf` `Ã©`, the other `▁caf` `é`, and both mean ` café`. Which
scheme a tokenizer uses is read from its own decoder, never guessed from a class name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from fusion.tokenizers.caching import cached_per_tokenizer
from fusion.tokenizers.control_tokens import control_tokens

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_KNOWN_DECODERS = {"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}

PieceToBytes = Callable[[str], bytes]
"""The bytes of a vocabulary entry as it is written in the tokenizer's own alphabet."""


def tokenizer_name(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the name of a tokenizer for messages: the path or repository it came from, else its type."""
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__


@cached_per_tokenizer
def vocabulary_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes | None]:
    """Return the bytes of each token by id; None for control tokens, the unknown token and unused ids.

    The byte-level alphabet is undone, the SentencePiece mark U+2581 is a space, `<0xNN>` is that byte. A token that
    holds part of a character has that part's bytes. The space that some tokenizers put before the first word is not
    considered: `▁a` is ` a`, wherever it stands. The list is shared between callers; do not change it.

    Raises ValueError for a tokenizer without a `tokenizers` backend, or whose decoder is not one of `_KNOWN_DECODERS`.
    """
    to_bytes = _piece_to_bytes(tokenizer)
    pieces = backend_tokenizer(tokenizer).get_vocab(with_added_tokens=True)
    table: list[bytes | None] = [None] * max(len(tokenizer), 1 + max(pieces.values(), default=-1))
    for piece, index in pieces.items():
        table[index] = to_bytes(piece)
    for index, token in tokenizer.added_tokens_decoder.items():  # kept as text, outside the byte alphabet
        table[index] = token.content.encode() if to_bytes is _byte_level_bytes else to_bytes(token.content)
    for index in (*control_tokens(tokenizer).values(), unk_token_id(tokenizer)):
        if index is not None:
            table[index] = None
    return table


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """Return the text of tokens as they follow other text: unlike `decode`, it keeps a space before the first word.

    Control tokens and ids without a token are left out. An incomplete character is U+FFFD.
    """
    table = vocabulary_bytes(tokenizer)
    return b"".join(table[index] or b"" for index in ids if index < len(table)).decode(errors="replace")


def backend_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the `tokenizers.Tokenizer` behind a fast tokenizer. Raises ValueError for a slow one."""
    found = getattr(tokenizer, "backend_tokenizer", None)
    if found is None:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: {type(tokenizer).__name__} has no `tokenizers` backend, so the bytes of its tokens "
            "cannot be known; convert it to a tokenizer.json and load that."
        )
    return found


def unk_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the unknown token as the tokenization model has it, or None."""
    model = backend_tokenizer(tokenizer).model
    if hasattr(model, "unk_token"):
        return None if model.unk_token is None else model.token_to_id(model.unk_token)
    return json.loads(model.__getstate__()).get("unk_id")  # Unigram keeps it to itself


def _piece_to_bytes(tokenizer: PreTrainedTokenizerBase) -> PieceToBytes:
    """Return the function from vocabulary entries to bytes, as the tokenizer's decoder and model say."""
    steps = list(_steps(backend_tokenizer(tokenizer).decoder))
    kinds = {step["type"] for step in steps}
    if kinds - _KNOWN_DECODERS:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: its decoder has the step(s) {', '.join(sorted(kinds - _KNOWN_DECODERS))}; token "
            f"bytes are known for {', '.join(sorted(_KNOWN_DECODERS))}. Use a model with a byte-level or SentencePiece "
            "tokenizer."
        )
    if "ByteLevel" in kinds or any(
        step["type"] == "ByteLevel" for step in _steps(backend_tokenizer(tokenizer).pre_tokenizer)
    ):
        return _byte_level_bytes
    mark = next(filter(None, map(_space_mark, steps)), None)
    text_bytes = partial(_text_bytes, mark)
    return partial(_byte_or_text_bytes, text_bytes) if "ByteFallback" in kinds else text_bytes


def _space_mark(step: dict[str, Any]) -> str | None:
    """Return the character that this decoder step turns into a space, or None."""
    if step["type"] == "Replace" and step["content"] == " ":
        return step["pattern"].get("String")
    return step.get("replacement") if step["type"] == "Metaspace" else None


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """Yield the settings of a decoder or pre-tokenizer, one dict for each step of a sequence; nothing for None."""
    todo = [] if part is None else [json.loads(part.__getstate__())]
    while todo:
        step = todo.pop(0)
        if step["type"] == "Sequence":
            todo = step.get("decoders", step.get("pretokenizers", [])) + todo
        else:
            yield step


def _byte_alphabet() -> dict[str, int]:
    """Return character -> byte of byte-level BPE: printable Latin-1 is itself, the other 68 bytes follow U+0100 in order.

    Source: Radford et al. 2019 (GPT-2), the alphabet its released encoder uses.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()
_TO_LATIN = {ord(character): byte for character, byte in _ALPHABET.items()}
_LETTERS = frozenset(_ALPHABET)


def _byte_level_bytes(piece: str) -> bytes:
    # a piece with any character outside the alphabet was added as plain text, and decoders leave it so
    return piece.translate(_TO_LATIN).encode("latin-1") if _LETTERS.issuperset(piece) else piece.encode()


def _text_bytes(mark: str | None, piece: str) -> bytes:
    return (piece.replace(mark, " ") if mark else piece).encode()


def _byte_or_text_bytes(text_bytes: PieceToBytes, piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else text_bytes(piece)
