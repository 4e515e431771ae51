"""What a model folder has besides its weights: configuration, tokenizer, card, recipe and record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_auxiliary_files(folder: Path, config: dict[str, Any], *, recipe: str, card: str) -> None:
    """Write into `folder`, which has weights and copied files, what else a model folder has but its record."""
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
