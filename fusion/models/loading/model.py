"""Load models with their weights; what is pickled, an adapter, or not what its configuration says is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.hub import cached_file

from fusion.models.checkpoint_check import check_folder, check_loaded
from fusion.models.checkpoint_files import ADAPTER_CONFIG, refuse_adapter, refuse_integers, stored_tensors
from fusion.models.loading.explain import load_or_explain
from fusion.models.loading.model_ref import ModelRef, check_model_folder


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
    model, info = load_or_explain(ref, "weights", lambda: AutoModelForCausalLM.from_pretrained(**arguments))
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
