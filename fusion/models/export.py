"""A trained model as a folder that others load: in all but weights and ends of answers what the pivot was.

Saving a model writes what a library makes of its configuration while it trains: other special tokens, `use_cache: false`, a
tokenizer that was given a padding token. So those files are the pivot's own, not what was saved.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils.hub import cached_file

from fusion.models.auxiliary_files import AUXILIARY_PATTERNS, config_with_dtype, copy_auxiliary_files
from fusion.models.loading import ModelRef, load_config

GENERATION_CONFIG = "generation_config.json"
CONFIG_FROM_PIVOT = ("use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
"""What the configuration of a pivot without config.json (a GGUF file) keeps."""


def save_weights(model: Any, folder: Path) -> None:
    """Save a model for `complete_export`, without its generation config, some of which transformers changes or refuses."""
    model.generation_config = GenerationConfig()
    model.save_pretrained(folder)


def complete_export(folder: Path, pivot: ModelRef, eos_token_ids: Sequence[int]) -> None:
    """Make a folder with saved weights a model like the pivot that it was trained from, which ends at `eos_token_ids` too.

    config.json is the pivot's with the type of the weights; tokenizer, chat templates, processors, licenses, remote code and
    generation settings are copied. In generation_config.json the trained ends are added to the pivot's own eos ids, so that
    plain `generate` stops where answers ended in training.
    """
    original = _original_folder(pivot)
    saved = json.loads((folder / "config.json").read_bytes())
    _write(folder / "config.json", _config(saved, pivot, original))
    (folder / GENERATION_CONFIG).unlink(missing_ok=True)
    if original is None:
        AutoTokenizer.from_pretrained(**pivot.from_pretrained_arguments()).save_pretrained(folder)
    else:
        copy_auxiliary_files(original, folder)
    add_ends(folder, pivot, eos_token_ids)


def add_ends(folder: Path, original: ModelRef, eos_token_ids: Sequence[int]) -> None:
    """Add ids behind those in `eos_token_id` of the folder's generation_config.json, which is as in `original` or absent."""
    file = folder / GENERATION_CONFIG
    if file.is_file():
        settings = json.loads(file.read_bytes())
    else:  # what transformers would make of config.json
        settings = GenerationConfig.from_model_config(load_config(original)).to_diff_dict()
        settings.pop("_from_model_config", None)
    ends = _as_list(settings.get("eos_token_id"))
    if added := [id for id in dict.fromkeys(eos_token_ids) if id not in ends]:
        _write(file, settings | {"eos_token_id": [*ends, *added]})


def common_ends(folders: Sequence[Path]) -> list[int]:
    """Return the eos ids that the generation_config.json of all these model folders has; none where one has no such file."""
    files = [folder / GENERATION_CONFIG for folder in folders]
    if not all(file.is_file() for file in files):
        return []
    first, *others = [_as_list(json.loads(file.read_bytes()).get("eos_token_id")) for file in files]
    return [id for id in first if all(id in ends for ends in others)]


def _as_list(ids: int | list[int] | None) -> list[int]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _original_folder(ref: ModelRef) -> Path | None:
    """The folder of a model's files, of a hub id in the cache; None for a GGUF file."""
    path = ref.local_path
    if path is not None:
        return path if path.is_dir() else None
    try:
        patterns = ["config.json", "*.py", *AUXILIARY_PATTERNS]
        return Path(snapshot_download(ref.path, revision=ref.revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):  # without a network: what was loaded is there
        file = cached_file(ref.path, "config.json", revision=ref.revision)
        assert file is not None, f"{ref.path} was loaded"
        return Path(file).parent


def _config(saved: dict[str, Any], pivot: ModelRef, original: Path | None) -> dict[str, Any]:
    own = {} if original is None else json.loads((original / "config.json").read_bytes())
    if own.get("model_type") != saved.get("model_type"):  # a GGUF file, or a language model taken out of a larger one
        loaded = load_config(pivot).get_text_config()
        return saved | {name: getattr(loaded, name) for name in CONFIG_FROM_PIVOT if hasattr(loaded, name)}
    config = config_with_dtype(own, saved.get("dtype"))
    if "quantization_config" not in saved:
        config.pop("quantization_config", None)
    return config


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
