"""What a model folder has besides its weights and config.json: which files a model made from another takes over from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.core.text_files import AGAIN, read_json, read_object

DTYPE_KEYS = ("dtype", "torch_dtype")
GENERATION_CONFIG = "generation_config.json"
VOCABULARY_PATTERNS = (
    "*.model", "*.model.v*", "*.spm", "*.tiktoken", "tekken.json", "vocab.*", "*vocab*.json", "*vocab*.txt", "encoder.json",
    "dict.txt", "merges.txt", "bpe.codes",
)  # fmt: skip
"""Files from which tokenizers without a tokenizer.json know their tokens, and how words are put together of them."""
TOKENIZER_PATTERNS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", *VOCABULARY_PATTERNS,
    "normalizer.json", "emoji.json", "word_*.json", "byte_maps.json", "chat_template.*", "additional_chat_templates/*",
    "*SYSTEM_PROMPT*.txt",
)  # fmt: skip
MODULES = "modules.json"
"""The file in which sentence-transformers lists what an embedding model does behind the transformer: pooling, more layers."""
MODULE_SETTINGS = (MODULES, "config_sentence_transformers.json", "sentence_*_config.json")
MODULE_FOLDERS = "[0-9]*_[A-Z]*"
"""Folders of such modules, as sentence-transformers calls them: 1_Pooling, 2_Dense."""
MODULE_FILES = ("*.json", "*.txt", "*.safetensors", "pytorch_model.bin")
"""Files of a module; some have weights of their own."""
AUXILIARY_PATTERNS = (
    *TOKENIZER_PATTERNS, *MODULE_SETTINGS, GENERATION_CONFIG, "*processor_config.json", "LICENSE*", "LICENCE*", "COPYING*",
    "NOTICE*", "USE_POLICY*",
)  # fmt: skip
"""Files that a model made from another takes over as they are: never its weights, README.md, nor what a training left."""
DOWNLOADED_PATTERNS = (*AUXILIARY_PATTERNS, *(f"{MODULE_FOLDERS}/{name}" for name in MODULE_FILES))
"""All files that `find_auxiliary_files` finds, as patterns of the hub; for remote code *.py too."""


def find_auxiliary_files(folder: Path) -> list[Path]:
    """List the files of a model folder that a model made from it takes over, its Python code too where it has some."""
    patterns = (*AUXILIARY_PATTERNS, "*.py") if _has_remote_code(folder) else AUXILIARY_PATTERNS
    return sorted({*find_files(folder, patterns), *find_module_files(folder)})


def find_module_files(folder: Path) -> list[Path]:
    """List the files of an embedding model's modules, weights included; none where the folder has no modules.json."""
    if not (folder / MODULES).is_file():
        return []
    named = {path for path in _module_paths(folder / MODULES) if (folder / path).is_dir()}
    found = {path.relative_to(folder).as_posix() for path in folder.glob(MODULE_FOLDERS) if path.is_dir()}
    modules = [folder / path for path in named | found]
    return sorted({file for path in modules for name in MODULE_FILES for file in path.rglob(name) if file.is_file()})


def _module_paths(file: Path) -> list[str]:
    """The folders that modules.json names; the transformer itself mostly has none. Raises ValueError where it names others."""
    modules = read_json(file)
    try:
        paths = [str(module["path"]) for module in modules]
    except (TypeError, KeyError):
        raise ValueError(f"{file} should list modules, each with a path; {AGAIN}.") from None
    if outside := [path for path in paths if path.startswith("/") or ".." in Path(path).parts]:
        raise ValueError(f"{file}: the path {outside[0]!r} is not in the folder of the model; write one that is.")
    return [path for path in paths if path.strip("./")]


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
        copy.parent.mkdir(parents=True, exist_ok=True)
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
