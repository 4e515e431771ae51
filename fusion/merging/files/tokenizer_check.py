"""Whether two model folders mean the same tokens by the same ids."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

OTHER_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
"""Files compared byte by byte where a folder has no tokenizer.json."""


def tokenizer_problems(base: Path, model: Path, *, pad: bool = False, role: str = "the base") -> list[str]:
    """Describe how the model's tokenizer differs from the base's; empty where it does not, or either folder has none.

    `role` is what messages call the base. With `pad` either may have tokens the other lacks, but no id may mean two tokens.
    """
    name = "tokenizer.json"
    if (base / name).is_file() and (model / name).is_file():
        return _vocabulary_problems(base, model, pad, role)
    shared = [other for other in OTHER_TOKENIZER_FILES if (base / other).is_file() and (model / other).is_file()]
    return [
        f"{model}: {other} differs from that of {role} {base}; merge models of one tokenizer"
        for other in shared
        if not filecmp.cmp(base / other, model / other, shallow=False)
    ]


def read_vocabulary(folder: Path) -> dict[int, str]:
    """Read token by id, added tokens included. Raises ValueError for a file that is no tokenizer."""
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


def _vocabulary_problems(base: Path, model: Path, pad: bool, role: str) -> list[str]:
    if filecmp.cmp(base / "tokenizer.json", model / "tokenizer.json", shallow=False):
        return []
    expected, actual = read_vocabulary(base), read_vocabulary(model)
    common = expected.keys() & actual.keys()
    ids = common if pad else expected.keys() | actual.keys()
    wrong = sorted(index for index in ids if expected.get(index) != actual.get(index))
    if not wrong:
        return []
    first = wrong[0]
    hint = "" if pad or first in common else "; --vocabulary pad lets one have tokens the other lacks"
    return [
        f"{model}: token {first} is {actual.get(first)!r}, {role} {base} has {expected.get(first)!r}"
        f" ({len(wrong)} tokens differ){hint}"
    ]
