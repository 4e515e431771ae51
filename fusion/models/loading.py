"""Load models and tokenizers from a hub id at a pinned revision, a local folder, or a GGUF file; and fingerprint them."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.utils.hub import cached_file, extract_commit_hash

from fusion.core.text_files import read_object
from fusion.models.checkpoint_check import check_folder, check_loaded
from fusion.models.checkpoint_files import ADAPTER_CONFIG, refuse_adapter, refuse_integers, stored_tensors
from fusion.models.gguf_check import check_gguf

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model", "*.jinja")
LONGEST_REASON = 300
"""Characters of a library's message that are passed on; some hold the whole value that is wrong."""
WRONG_VALUES = (AttributeError, TypeError, LookupError, ArithmeticError, AssertionError, struct.error)
"""What transformers and gguf run into where a file holds another kind of value than they count on."""
MODEL_FILES = (
    "*.json",
    "*.safetensors",
    "*.model",
    "*.jinja",
    "merges.txt",
    "vocab.txt",
)  # files that the outputs of a model folder depend on
WRITTEN_ABOUT_IT = {"evaluation.json"}
"""Files of a model folder that say what was measured of it, so that a measurement makes no other model of it."""


@dataclass(frozen=True)
class ModelRef:
    """The location of a model. `path` is a hub id, a folder, or a file that ends in .gguf."""

    path: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def local_path(self) -> Path | None:
        """The folder or file, or None for a hub id. Raises FileNotFoundError for a path that is clearly local but absent."""
        path = Path(self.path).expanduser()
        if path.exists():
            return path
        if self.path.startswith((".", "/", "~")) or self.path.endswith(".gguf") or self.path.count("/") > 1:
            raise FileNotFoundError(
                f"The model {self.path} does not exist. A model is a folder with config.json, a .gguf file, or a hub id "
                "such as HuggingFaceTB/SmolLM2-135M-Instruct."
            )
        return None

    def from_pretrained_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for `from_pretrained` of models, tokenizers and configurations."""
        path = self.local_path
        if path is not None and path.suffix == ".gguf":
            return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        return {
            "pretrained_model_name_or_path": self.path if path is None else str(path),
            "revision": self.revision or "main",
            "trust_remote_code": self.trust_remote_code,
        }


def load_tokenizer(ref: ModelRef) -> Any:
    """Load the tokenizer; its eos token becomes the padding token where it has none."""
    arguments = ref.from_pretrained_arguments()
    tokenizer = _load_or_explain(
        ref, "tokenizer", lambda: AutoTokenizer.from_pretrained(**arguments, **_config_without_model(ref))
    )
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if not isinstance(longest := tokenizer.model_max_length, (int, float)):
        raise ValueError(
            f"The tokenizer of {ref.path}: model_max_length in tokenizer_config.json should be a number of tokens, got "
            f"{longest!r}."
        )
    return tokenizer


def _config_without_model(ref: ModelRef) -> dict[str, Any]:
    """The argument that spares AutoTokenizer the model's own configuration class, half a second of import.

    Of a folder that names its tokenizer's class, AutoTokenizer reads no more than the configuration's `model_type`.
    """
    folder = ref.local_path
    if folder is None or not all((folder / file).is_file() for file in ("config.json", "tokenizer_config.json")):
        return {}
    named, said = (read_object(folder / file) for file in ("tokenizer_config.json", "config.json"))
    if "auto_map" in named or "auto_map" in said or not (named.get("tokenizer_class") and said.get("model_type")):
        return {}
    return {"config": PreTrainedConfig.from_dict(said)}


def load_config(ref: ModelRef) -> Any:
    """Load the configuration alone; no weights are read."""
    arguments = ref.from_pretrained_arguments()
    return _load_or_explain(ref, "configuration", lambda: AutoConfig.from_pretrained(**arguments))


def load_model(
    ref: ModelRef, dtype: str = "float32", device: str | torch.device = "cpu", quantization: Any = None
) -> Any:
    """Load the causal language model in evaluation mode. `dtype` is a torch name such as float32 or bfloat16.

    Weights must be safetensors or GGUF; pickled weights are refused. A model from GGUF is built again from its
    configuration, since transformers refuses to save one that was loaded from GGUF. `quantization` is a quantization config
    of transformers (bitsandbytes). Raises ValueError for what cannot be loaded, and where tensors in the files are not those
    of the model: see `check_loaded`.
    """
    _check_files(ref)
    arguments = ref.from_pretrained_arguments() | {"dtype": getattr(torch, dtype)}
    if "gguf_file" not in arguments:
        arguments["use_safetensors"] = True
    if quantization is not None:
        arguments |= {"quantization_config": quantization, "device_map": {"": device}}
    arguments |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # so that `check_loaded` names them all
    model, info = _load_or_explain(ref, "weights", lambda: AutoModelForCausalLM.from_pretrained(**arguments))
    check_loaded(ref.path, model, info)
    if "gguf_file" in arguments:
        model = _without_gguf(model)
        model.name_or_path = ref.path  # the file, for messages
    return (model if quantization is not None else model.to(device)).eval()


def check_checkpoint(ref: ModelRef) -> None:
    """Raise ValueError where a folder's weights are not those of its configuration; of a hub id, where it is an adapter.

    Reads headers of files alone. What loads models by itself, such as vLLM, is given the model after this.
    """
    path = ref.local_path
    if path is not None and path.is_dir():
        check_folder(path)
    _refuse_hub_adapter(ref)


def check_model_folder(ref: ModelRef) -> None:
    """Raise ValueError for a folder that is an adapter, FileNotFoundError for one without config.json; nothing else is read."""
    folder = ref.local_path
    if folder is None or folder.is_file():
        return
    refuse_adapter(folder)
    if (folder / "config.json").is_file():
        return
    inside = sorted(file.parent.relative_to(folder).as_posix() for file in folder.glob("*/config.json"))
    hint = f"Did you mean {folder / inside[0]}?" if inside else "Give the folder that save_pretrained wrote."
    raise FileNotFoundError(f"{folder} has no config.json, so it is not the folder of a model. {hint}")


def check_loads_again(model: Any) -> None:
    """Raise ValueError where transformers saves `model` under a configuration that it cannot load as a language model."""
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not getattr(model.config, "auto_map", None):
        raise ValueError(
            f"{type(model).__name__} ({model.name_or_path}) would be saved with a {type(model.config).__name__}, and "
            "transformers' AutoModelForCausalLM could not load it again. It can be a source, not the pivot."
        )


def count_parameters(ref: ModelRef) -> int:
    """Return the number of parameters, tied ones once, from the configuration alone."""
    return sum(p.numel() for p in empty_model(ref).parameters())


def empty_model(ref: ModelRef) -> Any:
    """Build the model without memory for its weights (device meta), from the configuration alone."""
    return build_without_weights(load_config(ref), ref.trust_remote_code)


def build_without_weights(config: Any, trust_remote_code: bool = False) -> Any:
    """Return the language model that a configuration describes, on the meta device, which holds no weights.

    Raises ValueError where transformers cannot build it.
    """

    def build() -> Any:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)

    return _load_or_explain(ModelRef(config.name_or_path or config.model_type), "architecture", build)


def vocabulary_size(tokenizer: Any) -> int:
    """Return the highest token id plus one; an output layer may be padded beyond it."""
    return max(tokenizer.get_vocab().values()) + 1


def model_fingerprint(ref: ModelRef, tokenizer_alone: bool = False) -> str:
    """Return what identifies a model or its tokenizer: `hub id@commit`, or the sha256 of local files' names and contents."""
    path, one = ref.local_path, "tokenizer_config.json" if tokenizer_alone else "config.json"
    if path is None:
        found = _load_or_explain(ref, one, lambda: cached_file(ref.path, one, revision=ref.revision))
        return f"{ref.path}@{extract_commit_hash(found, None)}"
    patterns = TOKENIZER_FILES if tokenizer_alone else MODEL_FILES
    found = {file for pattern in patterns for file in path.glob(pattern) if file.name not in WRITTEN_ABOUT_IT}
    files = [path] if path.is_file() else sorted(found)
    digest = hashlib.sha256()
    for file in files:
        if not path.is_file():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _check_files(ref: ModelRef) -> None:
    check_model_folder(ref)
    path = ref.local_path
    if path is not None and path.is_dir():
        refuse_integers(path, stored_tensors(path))
    _refuse_hub_adapter(ref)


def _refuse_hub_adapter(ref: ModelRef) -> None:
    if ref.local_path is None and (adapter := _cached_file_or_none(ref, ADAPTER_CONFIG)):
        refuse_adapter(adapter.parent)


def _cached_file_or_none(ref: ModelRef, name: str) -> Path | None:
    """A file of a hub id, downloaded if need be; None where there is none or it cannot be had."""
    file = cached_file(
        ref.path, name, revision=ref.revision, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False, _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    return None if file is None else Path(file)


def _without_gguf(loaded: Any) -> Any:
    config, weights = loaded.config, loaded.state_dict()
    config.__dict__.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(config, dtype=loaded.dtype)
    model.load_state_dict(weights)
    model.tie_weights()
    model.generation_config = loaded.generation_config
    return model


def _load_or_explain(ref: ModelRef, what: str, load: Any) -> Any:
    """Return the result of `load`, or raise ValueError or FileNotFoundError that says what to do."""
    if (path := ref.local_path) is not None and path.suffix == ".gguf" and path.is_file():
        check_gguf(path)
    try:
        return load()
    except torch.OutOfMemoryError:
        raise
    except ImportError as error:  # of a library that the architecture needs
        raise ValueError(f"Cannot load the {what} of {ref.path}: {_first_line(error)}") from error
    except WRONG_VALUES as error:
        described = "its metadata" if ref.path.endswith(".gguf") else "its files"
        raise ValueError(
            f"Cannot load the {what} of {ref.path}: transformers cannot build it from {described} "
            f"({type(error).__name__}: {_first_line(error)}). Copy all files from the same model again, or use an architecture "
            "that transformers' AutoModelForCausalLM knows."
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        check_model_folder(ref)
        raise ValueError(
            f"Cannot load the {what} of {ref.path} (revision {ref.revision or 'main'}): {_reason(ref, error)} "
            "Check the name, or point to a local folder or .gguf file (in a run with --set pivot.path=/models/mine)."
        ) from error
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise ValueError(  # what tokenizers, which is written in Rust, raises for any file
            f"Cannot load the {what} of {ref.path}: tokenizer.json is damaged or of another version ({_first_line(error)}). "
            "Copy it from where the model comes from again."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, StrictDataclassError):  # the second says which field, and why
        lines = [" ".join(lines[:2])]
    return lines[0][:LONGEST_REASON]


def _reason(ref: ModelRef, error: BaseException) -> str:
    """What failed; of a hub id without a connection, that it is neither a folder nor in the hub's cache here."""
    message = _first_line(error)
    if ref.local_path is None and re.search(r"couldn't connect|couldn't find them in the cache|offline", message, re.I):
        mode = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        return (
            f"there is no such folder, it is not in the hub's cache ({constants.HF_HUB_CACHE}), and {mode}. With a connection, "
            f"hf download {ref.path} brings it there."
        )
    return message
