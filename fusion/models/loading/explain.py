"""Run what loads a part of a model, and say of what fails which model it was, why, and what to do."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

import torch
from huggingface_hub import constants
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from fusion.models.gguf_check import check_gguf
from fusion.models.loading.model_ref import ModelRef, check_model_folder

LONGEST_REASON = 300
"""Characters of a library's message that are passed on; some hold the whole value that is wrong."""
WRONG_VALUES = (AttributeError, TypeError, LookupError, ArithmeticError, AssertionError, struct.error)
"""What transformers and gguf run into where a file holds another kind of value than they count on."""


def load_or_explain(ref: ModelRef, what: str, load: Callable[[], Any]) -> Any:
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
