"""What bytes each token of a vocabulary stands for, and which tokens stand for none.

Two tokenizers can only be compared in bytes: one writes `Ġcaf` `Ã©`, the other `▁caf` `é`, and both mean ` café`. The
scheme is read from the tokenizer's own decoder, never guessed from a class name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial, wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_KNOWN_DECODERS = {"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}

PieceToBytes = Callable[[str], bytes]
T = TypeVar("T")


def cached_per_tokenizer(compute: Callable[[PreTrainedTokenizerBase], T]) -> Callable[[PreTrainedTokenizerBase], T]:
    """`compute`, run once for each tokenizer object: do not add tokens to a tokenizer after it was used here."""
    known: WeakKeyDictionary[PreTrainedTokenizerBase, T] = WeakKeyDictionary()

    @wraps(compute)
    def recall(tokenizer: PreTrainedTokenizerBase) -> T:
        if tokenizer not in known:
            known[tokenizer] = compute(tokenizer)
        return known[tokenizer]

    return recall


def tokenizer_name(tokenizer: PreTrainedTokenizerBase) -> str:
    """What to call a tokenizer in a message: the path or repository it came from, else its type."""
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__


@cached_per_tokenizer
def vocabulary_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes | None]:
    """The bytes that each token id stands for, by id; None for control tokens, unknown tokens and unused ids.

    The byte-level alphabet is undone, the SentencePiece mark U+2581 is a space, `<0xNN>` is that byte. A token that
    holds part of a character is that part. The space that some tokenizers put before the first word is no token's
    matter: `▁a` is ` a`, wherever it stands. The list is shared between callers; do not change it.

    Raises ValueError for a tokenizer without a `tokenizers` backend, or of a scheme that is not spelled out here.
    """
    spell = _piece_to_bytes(tokenizer)
    pieces = backend_tokenizer(tokenizer).get_vocab(with_added_tokens=True)
    spelled: list[bytes | None] = [None] * max(len(tokenizer), 1 + max(pieces.values(), default=-1))
    for piece, index in pieces.items():
        spelled[index] = spell(piece)
    for index, token in tokenizer.added_tokens_decoder.items():  # kept as text, outside the byte alphabet
        spelled[index] = token.content.encode() if spell is _byte_level_bytes else spell(token.content)
    for index in (*control_tokens(tokenizer).values(), unk_token_id(tokenizer)):
        if index is not None:
            spelled[index] = None
    return spelled


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """The text that tokens stand for, wherever they stand: a space before the first word stays, which decoders take off.

    Control tokens and ids without a token stand for nothing. Half a character is U+FFFD.
    """
    table = vocabulary_bytes(tokenizer)
    return b"".join(table[index] or b"" for index in ids if index < len(table)).decode(errors="replace")


@cached_per_tokenizer
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The tokens that steer a model and must never come out of a user's text: how each is written -> its id."""
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


def backend_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The `tokenizers` object that does the work. Raises ValueError for a tokenizer that has none."""
    found = getattr(tokenizer, "backend_tokenizer", None)
    if found is None:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: {type(tokenizer).__name__} has no `tokenizers` backend, so the bytes of its tokens "
            "cannot be known; convert it to a tokenizer.json and load that."
        )
    return found


def unk_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the token for text that the vocabulary cannot write, if there is one."""
    model = backend_tokenizer(tokenizer).model
    if hasattr(model, "unk_token"):
        return None if model.unk_token is None else model.token_to_id(model.unk_token)
    return json.loads(model.__getstate__()).get("unk_id")  # Unigram keeps it to itself


def _piece_to_bytes(tokenizer: PreTrainedTokenizerBase) -> PieceToBytes:
    """How to spell a piece of this tokenizer, as its decoder and model say."""
    steps = list(_steps(backend_tokenizer(tokenizer).decoder))
    kinds = {step["type"] for step in steps}
    if kinds - _KNOWN_DECODERS:
        raise ValueError(
            f"{tokenizer_name(tokenizer)}: its decoder has the step(s) {', '.join(sorted(kinds - _KNOWN_DECODERS))}; token bytes "
            f"are known for {', '.join(sorted(_KNOWN_DECODERS))}. Use a model with a byte-level or SentencePiece "
            "tokenizer."
        )
    if "ByteLevel" in kinds or any(
        step["type"] == "ByteLevel" for step in _steps(backend_tokenizer(tokenizer).pre_tokenizer)
    ):
        return _byte_level_bytes
    mark = next(filter(None, map(_space_mark, steps)), None)
    spell_text = partial(_text_bytes, mark)
    return partial(_byte_or_text_bytes, spell_text) if "ByteFallback" in kinds else spell_text


def _space_mark(step: dict[str, Any]) -> str | None:
    """The character that this decoder step turns into a space, if it does so."""
    if step["type"] == "Replace" and step["content"] == " ":
        return step["pattern"].get("String")
    return step.get("replacement") if step["type"] == "Metaspace" else None


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The settings of a decoder or pre-tokenizer, one dict for each step of a sequence; nothing for None."""
    todo = [] if part is None else [json.loads(part.__getstate__())]
    while todo:
        step = todo.pop(0)
        if step["type"] == "Sequence":
            todo = step.get("decoders", step.get("pretokenizers", [])) + todo
        else:
            yield step


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level BPE: printable Latin-1 is itself, the other 68 bytes follow U+0100 in order.

    Source: Radford et al. 2019 (GPT-2), the alphabet its released encoder uses.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()
_TO_LATIN = {ord(character): byte for character, byte in _ALPHABET.items()}
_LETTERS = frozenset(_ALPHABET)


def _byte_level_bytes(piece: str) -> bytes:
    # a piece with any character outside the alphabet was put in as plain text, and decoders leave it so
    return piece.translate(_TO_LATIN).encode("latin-1") if _LETTERS.issuperset(piece) else piece.encode()


def _text_bytes(mark: str | None, piece: str) -> bytes:
    return (piece.replace(mark, " ") if mark else piece).encode()


def _byte_or_text_bytes(spell_text: PieceToBytes, piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else spell_text(piece)
