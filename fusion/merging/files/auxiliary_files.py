"""What a model folder has besides its weights: configuration, tokenizer, card, recipe and record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fusion.merging.files import merge_record
from fusion.merging.files.card import model_card

COPIED_PATTERNS = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.*", "additional_chat_templates/*",
)  # fmt: skip
"""Files that the result takes from the base as they are."""


def write_auxiliary_files(
    folder: Path, base: Path, config: dict[str, Any], *, recipe: str, record: dict[str, Any], title: str
) -> None:
    """Write into `folder`, which has the weights, what else a model folder has; the record comes last."""
    for file in find_auxiliary_files(base):
        target = folder / file.relative_to(base)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "README.md").write_text(model_card(title, record, recipe))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    merge_record.write(folder, record)


def config_with_dtype(config: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    """The configuration with the dtype of the result; None keeps the one it has."""
    if dtype is None:
        return config
    stated = [name for name in ("dtype", "torch_dtype") if name in config] or ["dtype"]
    return config | dict.fromkeys(stated, dtype)


def find_auxiliary_files(folder: Path) -> list[Path]:
    """List the files of a model folder that a merged one takes over as they are."""
    return sorted(file for pattern in COPIED_PATTERNS for file in folder.glob(pattern) if file.is_file())
