"""What a model folder has besides its weights and config.json: which files a model made from another takes over from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object

GENERATION_CONFIG = "generation_config.json"
TOKENIZER_PATTERNS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "*.model", "*.tiktoken", "chat_template.*", "additional_chat_templates/*",
)  # fmt: skip
AUXILIARY_PATTERNS = (
    *TOKENIZER_PATTERNS, GENERATION_CONFIG, "*processor_config.json", "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*",
    "USE_POLICY*",
)  # fmt: skip
"""Files that a model made from another takes over as they are: never weights, README.md, nor what a training left."""


def find_auxiliary_files(folder: Path) -> list[Path]:
    """List the files of a model folder that a model made from it takes over, its Python code too where it has some."""
    patterns = (*AUXILIARY_PATTERNS, "*.py") if _has_remote_code(folder) else AUXILIARY_PATTERNS
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def copy_auxiliary_files(source: Path, target: Path) -> None:
    """Copy the files of `find_auxiliary_files` into another model folder; its own tokenizer files go."""
    for pattern in TOKENIZER_PATTERNS:
        for file in target.glob(pattern):
            file.unlink()
    for file in find_auxiliary_files(source):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)  # follows links, as those of the hub's cache


def config_with_dtype(config: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    """Return the configuration with the dtype of the result; None keeps the one it has."""
    if dtype is None:
        return config
    stated = [name for name in ("dtype", "torch_dtype") if name in config] or ["dtype"]
    return config | dict.fromkeys(stated, dtype)


def add_ends(folder: Path, eos_token_ids: Sequence[int]) -> None:
    """Add ids behind those in `eos_token_id` of the folder's generation_config.json, if it has that file."""
    file = folder / GENERATION_CONFIG
    settings = read_object(file) if file.is_file() else {}
    ends = _as_list(settings.get("eos_token_id"))
    added = [id for id in dict.fromkeys(eos_token_ids) if id not in ends]
    if added and file.is_file():
        write_json(file, settings | {"eos_token_id": [*ends, *added]})


def common_ends(folders: Sequence[Path]) -> list[int]:
    """Return the eos ids that the generation_config.json of all these model folders has; none where one has no such file."""
    files = [folder / GENERATION_CONFIG for folder in folders]
    if not all(file.is_file() for file in files):
        return []
    first, *others = [_as_list(read_object(file).get("eos_token_id")) for file in files]
    return [id for id in first if all(id in ends for ends in others)]


def write_json(file: Path, value: Any) -> None:
    """Write a configuration as transformers does."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _as_list(ids: int | list[int] | None) -> list[int]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _has_remote_code(folder: Path) -> bool:
    files = [folder / name for name in ("config.json", "tokenizer_config.json")]
    return any("auto_map" in read_object(file) for file in files if _is_json(file))


def _is_json(file: Path) -> bool:
    try:
        return isinstance(read_object(file), dict)
    except (OSError, ValueError):
        return False
