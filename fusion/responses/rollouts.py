"""Texts that the pivot wrote, kept in its own tokens: what it learns from in rounds is what it wrote, token by token."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from fusion.data.chat_tokens import Prompt
from fusion.data.encode import Encoded
from fusion.tokenizers import vocabulary_bytes


@dataclass(frozen=True)
class Rollout:
    """A text as the pivot wrote it, up to where it ended, was cut, or is no text that another model could read."""

    ids: tuple[int, ...]
    """Its tokens, without the one that ended it. Encoding `text` again may give others: a model writes as it likes."""
    text: str
    """The same as text, without a space that belongs to the prompt (`Prompt.lead`)."""
    end: int | None
    """The token that ended it; None where it was cut."""

    def encoded(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Encoded:
        """Return prompt and text as they were written; a text that was cut has no row for its end."""
        table = vocabulary_bytes(tokenizer)
        lengths = [len(table[index] or b"") for index in self.ids]
        lead = sum(lengths) - len(self.text.encode())
        prefix = [max(0, length - lead) for length in accumulate(lengths, initial=0)]
        end = [] if self.end is None else [self.end]
        ids = [*prompt.ids, *self.ids, *end]
        return Encoded(ids, len(prompt.ids), prefix[: len(self.ids) + len(end)], truncated=self.end is None)


def read_rollout(
    tokenizer: PreTrainedTokenizerBase, written: Sequence[int], ends: Collection[int], stop: Sequence[str], lead: str
) -> Rollout:
    """Return what the pivot wrote, as `Completion.ids` has it.

    It ends at one of the ids `ends` or at a token that begins with one of the texts `stop`. It is cut before another control
    token, before a token within which such a text begins, and before bytes that are no UTF-8: no other model can read these.
    """
    table, ids, data, end = vocabulary_bytes(tokenizer), list[int](), b"", None
    for index in written:
        piece = table[index] if index < len(table) else None  # some output layers are longer than the vocabulary
        if index in ends:
            end = index
            break
        if piece is None:
            break
        if (place := _first_stop(data + piece, stop)) is not None:
            end = index if place == len(data) else None
            break
        ids.append(index)
        data += piece
    kept = _readable([table[index] or b"" for index in ids])
    text = b"".join(table[index] or b"" for index in ids[:kept]).decode()
    return Rollout(tuple(ids[:kept]), text.removeprefix(lead), end if kept == len(ids) else None)


def _first_stop(data: bytes, stop: Sequence[str]) -> int | None:
    """Where the first text at which answers end begins; None where there is none."""
    return min((place for text in stop if (place := data.find(text.encode())) >= 0), default=None)


def _readable(pieces: Sequence[bytes]) -> int:
    """Return how many of the pieces, from the first on, are a text together."""
    decoder, readable = codecs.getincrementaldecoder("utf-8")(), 0
    for number, piece in enumerate(pieces, start=1):
        try:
            decoder.decode(piece)
        except UnicodeDecodeError:
            break
        if not decoder.getstate()[0]:
            readable = number
    return readable
