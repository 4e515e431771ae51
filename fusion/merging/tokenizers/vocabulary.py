"""Which token each id means, as far as the files of a tokenizer say it."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object
from fusion.models.auxiliary_files import VOCABULARY_PATTERNS, find_files

WHOLE = "tokenizer.json"
"""The file that lists every token."""
ADDED, SETTINGS, ROLES = "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a folder by their ids: all that there are, or, without a tokenizer.json that lists them, the added ones."""

    tokens: dict[int, str]
    added: frozenset[int]
    """Ids of tokens that stand beside the pieces of words, such as marks of turns."""
    named: frozenset[str]
    """Tokens that have a role, such as end of text, whether or not their ids are said."""
    is_whole: bool
    """Whether `tokens` are all that there are."""

    def lacks(self, token: str) -> bool:
        """Whether there is no such token, or one with another id than that of which nothing is said here."""
        return self.is_whole or token in self.tokens.values()


def vocabulary_files(folder: Path) -> list[str]:
    """The names of a folder's files that say which tokens there are."""
    return [file.name for file in find_files(folder, (WHOLE, *VOCABULARY_PATTERNS))]


def is_same_file(first: Path, second: Path) -> bool:
    """Whether two files hold the same bytes."""
    return filecmp.cmp(first, second, shallow=False)


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the tokens of a folder, with those that its settings add. Raises ValueError for a file that is no tokenizer's."""
    stated, named = stated_tokens(folder), frozenset(_named_tokens(folder))
    if not (folder / WHOLE).is_file():
        return Vocabulary(stated, frozenset(stated), named, is_whole=False)
    pieces, added = _listed_tokens(folder / WHOLE)
    listed = pieces | added
    known = set(listed.values())
    more = {index: token for index, token in stated.items() if index not in listed and token not in known}
    return Vocabulary(listed | more, frozenset(added | more), named, is_whole=True)


def stated_tokens(folder: Path) -> dict[int, str]:
    """Read the tokens that a folder adds to those of its model of words, in files besides tokenizer.json."""
    added = _object(folder / ADDED)
    decoder = _object(folder / SETTINGS).get("added_tokens_decoder") or {}
    try:
        stated = {index: token for token, index in added.items()}
        return stated | {int(index): _content(token) for index, token in decoder.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder}: {ADDED} or added_tokens_decoder in {SETTINGS} gives tokens no ids ({error!r}); copy it again."
        ) from error


def _listed_tokens(file: Path) -> tuple[dict[int, str], dict[int, str]]:
    """The pieces of words of a tokenizer.json, and the tokens beside them."""
    try:
        content = read_object(file)
        pieces, added = content["model"]["vocab"], content.get("added_tokens") or []
        if isinstance(pieces, dict):
            tokens = {index: token for token, index in pieces.items()}
        else:  # Unigram: pairs of piece and score, in the order of their ids
            tokens = {index: piece[0] for index, piece in enumerate(pieces)}
        return tokens, {token["id"]: token["content"] for token in added}
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{file} is no tokenizer that can be read ({error!r}); copy it again.") from error


def _named_tokens(folder: Path) -> Iterator[str]:
    for name in (SETTINGS, ROLES):
        for key, value in _object(folder / name).items():
            if key.endswith("_token") and isinstance(value, (str, dict)):
                yield _content(value)
            elif key in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list):
                yield from map(_content, value)


def _content(token: Any) -> str:
    """The text of a token, which stands alone or with settings of its own."""
    return token["content"] if isinstance(token, dict) else token


def _object(file: Path) -> dict[str, Any]:
    return read_object(file) if file.is_file() else {}
