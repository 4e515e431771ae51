"""Whether two model folders mean the same tokens by the same ids."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

OTHERS = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
"""Files compared byte by byte where a folder has no tokenizer.json."""


def disagreements(base: Path, model: Path, *, pad: bool = False) -> list[str]:
    """What differs, one line a model; nothing where either folder has no tokenizer.

    With `pad` either may have tokens the other lacks, but no id may mean two tokens.
    """
    name = "tokenizer.json"
    if (base / name).is_file() and (model / name).is_file():
        return _tokens(base, model, pad)
    shared = [other for other in OTHERS if (base / other).is_file() and (model / other).is_file()]
    return [
        f"{model}: {other} differs from that of the base {base}; merge models of one tokenizer"
        for other in shared
        if not filecmp.cmp(base / other, model / other, shallow=False)
    ]


def vocabulary(folder: Path) -> dict[int, str]:
    """Token by id, added tokens included. Raises ValueError for a file that is no tokenizer."""
    file = folder / "tokenizer.json"
    try:
        content = json.loads(file.read_bytes())
        pieces, added = content["model"]["vocab"], content.get("added_tokens") or []
        if isinstance(pieces, dict):
            tokens = {index: token for token, index in pieces.items()}
        else:  # Unigram: pairs of piece and score, in the order of their ids
            tokens = {index: piece[0] for index, piece in enumerate(pieces)}
        return tokens | {token["id"]: token["content"] for token in added}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{file} is no tokenizer that can be read ({error!r}); copy it again.") from error


def _tokens(base: Path, model: Path, pad: bool) -> list[str]:
    if filecmp.cmp(base / "tokenizer.json", model / "tokenizer.json", shallow=False):
        return []
    ours, theirs = vocabulary(base), vocabulary(model)
    ids = ours.keys() & theirs.keys() if pad else ours.keys() | theirs.keys()
    wrong = sorted(index for index in ids if ours.get(index) != theirs.get(index))
    if not wrong:
        return []
    first = wrong[0]
    hint = (
        "" if pad or first in ours.keys() & theirs.keys() else "; --vocabulary pad lets one have tokens the other lacks"
    )
    return [
        f"{model}: token {first} is {theirs.get(first)!r}, the base {base} has {ours.get(first)!r}"
        f" ({len(wrong)} tokens differ){hint}"
    ]
