"""Whether two tokenizers of one vocabulary make the same tokens of a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object

ON_THE_WAY = ("normalizer", "pre_tokenizer", "post_processor")
"""Parts of tokenizer.json that a text passes through besides the model of its words."""
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
"""What decides where in a text an added token is found."""
BY_ID = ("added_tokens", "scores")
"""What each token has of its own, of which those count that both tokenizers have."""


def splitting_differences(first: Path, second: Path) -> list[str]:
    """Name the parts of two files tokenizer.json that decide which tokens a text becomes, and differ."""
    one, other = map(_parts, _contents(first, second))
    return [name for name in sorted(one | other) if _differ(name, one.get(name), other.get(name))]


def _contents(*files: Path) -> list[dict[str, Any]]:
    """The contents, each as this release of tokenizers writes it; as they are where it cannot read one of them.

    Releases write the same thing in several ways: merges as pairs or as words, a space before a text by two names.
    """
    from tokenizers import Tokenizer

    try:
        return [json.loads(Tokenizer.from_file(str(file)).to_str()) for file in files]
    except Exception:  # of no class of its own
        return [read_object(file) for file in files]


def _parts(content: dict[str, Any]) -> dict[str, Any]:
    model, added = content["model"], content.get("added_tokens") or []
    parts = {name: content.get(name) for name in ON_THE_WAY}
    parts |= {name: value for name, value in model.items() if name not in ("vocab", "dropout")}
    parts["added_tokens"] = {token["id"]: [token.get(flag) for flag in FLAGS] for token in added}
    if isinstance(model["vocab"], list):
        parts["scores"] = {index: piece[1] for index, piece in enumerate(model["vocab"])}
    return parts


def _differ(name: str, first: Any, second: Any) -> bool:
    if name in BY_ID and first is not None and second is not None:
        return any(first[index] != second[index] for index in first.keys() & second.keys())
    return first != second
