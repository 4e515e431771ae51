"""Maps between vocabularies: which token of the pivot stands for a token of a source.

A vocabulary is the list of the bytes of its tokens by id, None for control tokens and unused ids. A map is one number
for each source id: a pivot id, or -1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.core.rows import EntryRows

TokenBytes = Sequence[bytes | None]
ControlTokenPairs = Sequence[tuple[int, int]]
"""Pairs (source id, pivot id) of control tokens with the same role, such as the end of turn."""

Tokenize = Callable[[list[str]], list[list[int]]]
"""Texts -> ids of each in the pivot's vocabulary, without any token added and with control tokens split."""


def exact_map(source: TokenBytes, pivot: TokenBytes, control_tokens: ControlTokenPairs = ()) -> Int[Tensor, " V"]:
    """The pivot token with the same bytes for each source token, else -1. Control tokens are mapped by `control_tokens` alone.

    Where several pivot tokens have the same bytes, an ordinary token goes before one that stands for a bare byte
    (`<0x61>` is never written where there is an `a`), then the lowest id.
    """
    by_bytes = _by_bytes(pivot)
    return _with_control_tokens([-1 if word is None else by_bytes.get(word, -1) for word in source], control_tokens)


def first_piece_map(
    source: TokenBytes, pivot: TokenBytes, tokenize: Tokenize, control_tokens: ControlTokenPairs = ()
) -> Int[Tensor, " V"]:
    """The first of the pivot's tokens for the bytes of each source token: many to one, and total where it can be.

    Where the pivot's tokenizer cannot tell (bytes that are not UTF-8, text that it changes), it is the longest pivot
    token that the bytes begin with; -1 where there is none. Control tokens are mapped by `control_tokens` alone.

    Raises ValueError when `tokenize` gives an id that `pivot` does not have.
    """
    by_bytes = _by_bytes(pivot)
    pieces = _first_pieces([word for word in source if word], pivot, tokenize)
    firsts = [
        -1 if not word else pieces[word] if word in pieces else _longest_beginning(word, by_bytes) for word in source
    ]
    return _with_control_tokens(firsts, control_tokens)


def map_entries(
    rows: EntryRows, vocabulary_map: Int[Tensor, " V"]
) -> tuple[Int[Tensor, "N K"], Float[Tensor, "N K"], Int[Tensor, "N K"] | None]:
    """Map the entries of a source's rows into the pivot's vocabulary: ids, log-probabilities, and counts where drawn.

    Entries of a row that land on one id become one, at the place of the first of them, with the sum of their
    probabilities; the others and those without a pivot id become empty (-1, -inf). So the mass of what was mapped is
    kept, and entries need not be in descending order any more.

    Takes N x K x K memory. Raises ValueError for ids that the map does not reach.
    """
    if rows.ids.numel() and int(rows.ids.max()) >= len(vocabulary_map):
        raise ValueError(
            f"Rows hold the token id {int(rows.ids.max())}, the vocabulary map ends at {len(vocabulary_map) - 1}; "
            "mask ids beyond the tokenizer when extracting, or make the map from this source's tokenizer."
        )
    table = torch.cat([vocabulary_map, vocabulary_map.new_tensor([-1])]).to(rows.ids)  # so that -1 stays -1
    pooled = dataclasses.replace(rows, ids=table[rows.ids.long()]).pooled()
    return pooled.ids, pooled.logprobs, pooled.sample_counts


def coverage(vocabulary_map: Int[Tensor, " V"]) -> float:
    """Share of the source's ids that have a pivot id, 0 to 1; 0 for an empty map."""
    return float((vocabulary_map >= 0).double().mean()) if len(vocabulary_map) else 0.0


def _with_control_tokens(ids: list[int], control_tokens: ControlTokenPairs) -> Int[Tensor, " V"]:
    found = torch.tensor(ids, dtype=torch.long)
    for source, pivot in control_tokens:
        found[source] = pivot
    return found


def _by_bytes(vocabulary: TokenBytes) -> dict[bytes, int]:
    """Bytes -> the token id that is meant by them."""
    bare = set(_byte_tokens(vocabulary))
    found: dict[bytes, int] = {}
    for index in sorted(range(len(vocabulary)), key=lambda index: (index in bare, index)):
        word = vocabulary[index]
        if word:
            found.setdefault(word, index)
    return found


def _byte_tokens(vocabulary: TokenBytes) -> Iterable[int]:
    """Ids of the tokens `<0x00>` to `<0xFF>` of byte fallback: 256 neighbours that stand for the bytes in order.

    A byte-level vocabulary holds each byte once, so that nothing hangs on what is found there.
    """
    run = [bytes([byte]) for byte in range(256)]
    begins = (n for n, word in enumerate(vocabulary) if word == b"\x00")
    return (index for n in begins if list(vocabulary[n : n + 256]) == run for index in range(n, n + 256))


def _first_pieces(words: Sequence[bytes], pivot: TokenBytes, tokenize: Tokenize) -> dict[bytes, int]:
    """The first token that the pivot's tokenizer makes of each word, for those words whose bytes begin with it."""
    opening = b"".join(pivot[index] or b"" for index in _tokenized(["a"], pivot, tokenize)[0])
    leading = opening.startswith(b" ")  # the tokenizer puts a space before the first word of a text
    texts = {text: word for word in words if (text := _text(word, leading))}
    pieces = _tokenized(list(texts), pivot, tokenize) if texts else []
    firsts = {word: ids[0] for word, ids in zip(texts.values(), pieces, strict=True) if ids}
    return {word: piece for word, piece in firsts.items() if pivot[piece] and word.startswith(pivot[piece] or b"")}


def _tokenized(texts: list[str], pivot: TokenBytes, tokenize: Tokenize) -> list[list[int]]:
    pieces = tokenize(texts)
    if any(max(ids, default=0) >= len(pivot) for ids in pieces):
        raise ValueError(f"The tokenizer gives ids beyond {len(pivot) - 1}, the last of the pivot's vocabulary.")
    return pieces


def _text(word: bytes, leading: bool) -> str | None:
    """What to tokenise to get the tokens of `word`; None where no text would give them."""
    if leading and not word.startswith(b" "):
        return None
    try:
        return word[leading:].decode()  # the tokenizer puts the space back
    except UnicodeDecodeError:
        return None


def _longest_beginning(word: bytes, by_bytes: dict[bytes, int]) -> int:
    return next((by_bytes[word[:end]] for end in range(len(word), 0, -1) if word[:end] in by_bytes), -1)
