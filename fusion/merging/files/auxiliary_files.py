"""What a model folder has besides its weights: configuration, tokenizer, card, recipe and record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fusion.merging.files.card import model_card
from fusion.models.auxiliary_files import copy_auxiliary_files


def write_auxiliary_files(
    folder: Path, base: Path, config: dict[str, Any], *, recipe: str, record: dict[str, Any], title: str
) -> None:
    """Write into `folder`, which has the weights, what else a model folder has; the record comes last, by itself."""
    copy_auxiliary_files(base, folder)
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "README.md").write_text(model_card(title, record, recipe))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
