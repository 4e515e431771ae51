"""What a model folder has besides its weights and config.json: which files a model made from another takes over from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object

DTYPE_KEYS = ("dtype", "torch_dtype")
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
    return find_files(folder, patterns)


def find_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """List the files of a folder that match one of the patterns."""
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def copy_auxiliary_files(source: Path, target: Path) -> None:
    """Copy the files of `find_auxiliary_files` into another model folder; its own tokenizer files go."""
    replace_tokenizer_files(source, target, find_auxiliary_files(source))


def replace_tokenizer_files(source: Path, target: Path, files: Sequence[Path]) -> None:
    """Copy files of the folder `source` into `target`, whose own tokenizer files go."""
    for file in find_files(target, TOKENIZER_PATTERNS):
        file.unlink()
    for file in files:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)  # follows links, as those of the hub's cache


def chat_template(folder: Path) -> str | None:
    """Return the chat template of a model folder, of several the default one; None where it has none that can be read."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = read_object(folder / name).get("chat_template") if is_json(folder / name) else None
        if isinstance(template, list):  # of several, each with a name
            template = next((each.get("template") for each in template if each.get("name") == "default"), None)
        if isinstance(template, str):
            return template
    return None


def config_with_dtype(config: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    """Return the configuration with the dtype of the result, also in the parts that state one; None keeps what it has."""
    if dtype is None:
        return config
    changed = _stated_dtypes(config, dtype)
    return changed if any(name in config for name in DTYPE_KEYS) else changed | {"dtype": dtype}


def _stated_dtypes(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    parts = {key: _stated_dtypes(value, dtype) for key, value in config.items() if isinstance(value, dict)}
    return config | parts | {name: dtype for name in DTYPE_KEYS if name in config}


def add_ends(folder: Path, eos_token_ids: Sequence[int]) -> None:
    """Add ids behind those in `eos_token_id` of the folder's generation_config.json, if it has that file."""
    file = folder / GENERATION_CONFIG
    if file.is_file():
        settings = read_object(file)
        changed = with_ends(settings, eos_token_ids)
        if changed != settings:
            write_json(file, changed)


def with_ends(settings: dict[str, Any], eos_token_ids: Sequence[int]) -> dict[str, Any]:
    """Return settings with these ids behind those in `eos_token_id`."""
    ends = as_list(settings.get("eos_token_id"))
    added = [id for id in dict.fromkeys(eos_token_ids) if id not in ends]
    return settings | {"eos_token_id": [*ends, *added]} if added else settings


def common_ends(folders: Sequence[Path]) -> list[int]:
    """Return the eos ids that all these model folders have, in generation_config.json or, without that file, in config.json."""
    if not folders:
        return []
    first, *others = map(eos_ids_of, folders)
    return [id for id in first if all(id in ends for ends in others)]


def eos_ids_of(folder: Path) -> list[int]:
    """Return the ids at which the model in a folder stops: of generation_config.json or, without that file, of config.json."""
    files = [folder / GENERATION_CONFIG, folder / "config.json"]
    stated = next((read_object(file) for file in files if file.is_file()), {})
    return as_list(stated.get("eos_token_id"))


def write_json(file: Path, value: Any) -> None:
    """Write a configuration as transformers does."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def as_list(ids: int | list[int] | None) -> list[int]:
    """Return the ids of a setting that may be one, several or null."""
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _has_remote_code(folder: Path) -> bool:
    files = [folder / name for name in ("config.json", "tokenizer_config.json")]
    return any("auto_map" in read_object(file) for file in files if is_json(file))


def is_json(file: Path) -> bool:
    """Whether a file is there and holds keys and values."""
    try:
        return isinstance(read_object(file), dict)
    except (OSError, ValueError):
        return False
