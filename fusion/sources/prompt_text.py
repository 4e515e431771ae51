"""The text of token ids, for servers that take text and no ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusion.sources.token_names import TokenNames, token_names
from fusion.tokenizers import decode_text


@dataclass(frozen=True, eq=False)
class PromptText:
    """How prompts are written for one server."""

    tokenizer: Any
    adds_bos: bool
    """Whether the server puts BOS before every text by itself."""

    def of(self, ids: Sequence[int]) -> str:
        """Return the text of which the server should make these ids, its own BOS left out.

        Raises ValueError where this tokenizer makes other ids of it, or the server adds a token that is not among them.
        """
        names = token_names(self.tokenizer)
        own = list(ids)
        if self.adds_bos:
            if not own or own[0] != self.tokenizer.bos_token_id:
                raise ValueError(
                    f"the server puts a token before every text, and {_shown(self.tokenizer, own)} does not "
                    "begin with BOS. Turn that off in the server, or use one that takes ids (prompt: ids)."
                )
            own = own[1:]
        pieces = [_piece(names, run) for run in _runs(names, own)]
        whole = "".join(pieces)
        # some tokenizers put a space before a text, or before each piece of it, by themselves
        for text in (whole, whole.removeprefix(" "), "".join(piece.removeprefix(" ") for piece in pieces)):
            if self.tokenizer(text, add_special_tokens=False)["input_ids"] == own:
                return text
        raise ValueError(
            f"as text, {_shown(self.tokenizer, own)} is cut into other tokens than this run has: "
            f"{_difference(self.tokenizer, own, whole)}. Use a server that takes ids (prompt: ids), end the prompt with a "
            "line break, or leave the example out."
        )


def whole_characters(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Return the ids without those at the end that begin a character and do not end it (a text cut at the maximum length)."""
    ends = [number for number, before in enumerate(token_names(tokenizer).pending([*ids, 0])) if not before]
    return list(ids[: ends[-1]])


def _runs(names: TokenNames, ids: Sequence[int]) -> list[list[int]]:
    """Return the ids in runs of one control token, or of tokens with bytes."""
    runs: list[list[int]] = []
    for id in ids:
        if id in names.control or not runs or runs[-1][-1] in names.control:
            runs.append([])
        runs[-1].append(id)
    return runs


def _piece(names: TokenNames, run: Sequence[int]) -> str:
    return names.control.get(run[0]) or decode_text(names.tokenizer, run)


def _difference(tokenizer: Any, own: Sequence[int], text: str) -> str:
    again = tokenizer(text, add_special_tokens=False)["input_ids"]
    at = next((n for n, (a, b) in enumerate(zip(own, again, strict=False)) if a != b), min(len(own), len(again)))
    here, there = (tokenizer.batch_decode([[id] for id in ids[at : at + 3]]) for ids in (own, again))
    return f"{there} where {here} stood, at token {at}"


def _shown(tokenizer: Any, ids: Sequence[int]) -> str:
    text = tokenizer.decode(ids)
    return repr(text if len(text) <= 60 else f"{text[:30]} ... {text[-25:]}")
