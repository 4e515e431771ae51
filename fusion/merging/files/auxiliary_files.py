"""What a model folder has beside its weights: configuration, tokenizer, card, recipe and record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fusion.merging.files import merge_record
from fusion.merging.files.card import card

COPIED = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.*", "additional_chat_templates/*",
)  # fmt: skip
"""What the result takes from the base besides config.json and weights."""


def complete(
    folder: Path, base: Path, config: dict[str, Any], recipe: str, made_from: dict[str, Any], title: str
) -> None:
    """Adds to the weights in `folder` what else a model folder has; the record comes last."""
    for file in beside(base):
        target = folder / file.relative_to(base)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "README.md").write_text(card(title, made_from, recipe))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    merge_record.finish(folder, made_from)


def configuration(config: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    """The base's configuration, with the dtype of the result where another was chosen."""
    if dtype is None:
        return config
    stated = [name for name in ("dtype", "torch_dtype") if name in config] or ["dtype"]
    return config | dict.fromkeys(stated, dtype)


def beside(folder: Path) -> list[Path]:
    """The files of a model folder that a merged one takes over."""
    return sorted(file for pattern in COPIED for file in folder.glob(pattern) if file.is_file())
