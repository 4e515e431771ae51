"""A trained model as a folder that others load: in all but weights and ends of answers what the pivot was.

Saving a model writes what a library makes of its configuration while it trains: other special tokens, `use_cache: false`, a
tokenizer that was given a padding token. So those files are the pivot's own, not what was saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils.hub import cached_file

from fusion.core.text_files import read_object
from fusion.models.auxiliary_files import (
    DOWNLOADED_PATTERNS,
    GENERATION_CONFIG,
    add_ends,
    config_with_dtype,
    copy_auxiliary_files,
    write_json,
)
from fusion.models.loading import ModelRef, load_config

CONFIG_FROM_PIVOT = ("use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
"""What the configuration of a pivot without config.json (a GGUF file) keeps."""


def save_weights(model: Any, folder: Path) -> None:
    """Save a model for `complete_export`, without its generation config, some of which transformers changes or refuses."""
    model.generation_config = GenerationConfig()
    model.save_pretrained(folder)


def complete_export(folder: Path, pivot: ModelRef, eos_token_ids: Sequence[int]) -> None:
    """Make a folder with saved weights a model like the pivot that it was trained from, which ends at `eos_token_ids` too.

    config.json is the pivot's with the type of the weights; tokenizer, chat templates, processors, modules of an embedding
    model, licenses, remote code and generation settings are copied. In generation_config.json the trained ends are added to
    the pivot's own eos ids, so that plain `generate` stops where answers ended in training.
    """
    original = _original_folder(pivot)
    saved = read_object(folder / "config.json")
    write_json(folder / "config.json", _config(saved, pivot, original))
    (folder / GENERATION_CONFIG).unlink(missing_ok=True)
    if original is None:
        AutoTokenizer.from_pretrained(**pivot.from_pretrained_arguments()).save_pretrained(folder)
    else:
        copy_auxiliary_files(original, folder)
    if not (folder / GENERATION_CONFIG).is_file():  # what transformers makes of config.json then
        settings = GenerationConfig.from_model_config(load_config(pivot)).to_diff_dict()
        write_json(
            folder / GENERATION_CONFIG, {name: v for name, v in settings.items() if name != "_from_model_config"}
        )
    add_ends(folder, eos_token_ids)


def _original_folder(ref: ModelRef) -> Path | None:
    """The folder of a model's files, of a hub id in the cache; None for a GGUF file."""
    path = ref.local_path
    if path is not None:
        return path if path.is_dir() else None
    try:
        patterns = ["config.json", "*.py", *DOWNLOADED_PATTERNS]
        return Path(snapshot_download(ref.path, revision=ref.revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):  # without a network: what was loaded is there
        file = cached_file(ref.path, "config.json", revision=ref.revision)
        assert file is not None, f"{ref.path} was loaded"
        return Path(file).parent


def _config(saved: dict[str, Any], pivot: ModelRef, original: Path | None) -> dict[str, Any]:
    own = {} if original is None else read_object(original / "config.json")
    if own.get("model_type") != saved.get("model_type"):  # a GGUF file, or a language model taken out of a larger one
        loaded = load_config(pivot).get_text_config()
        return saved | {name: getattr(loaded, name) for name in CONFIG_FROM_PIVOT if hasattr(loaded, name)}
    config = config_with_dtype(own, saved.get("dtype"))
    if "quantization_config" not in saved:
        config.pop("quantization_config", None)
    return config
