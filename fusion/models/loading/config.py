"""Load configurations, and build from them what has no weights yet."""

from __future__ import annotations

from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from fusion.models.loading.explain import load_or_explain
from fusion.models.loading.model_ref import ModelRef


def load_config(ref: ModelRef) -> Any:
    """Load the configuration alone; no weights are read."""
    arguments = ref.from_pretrained_arguments()
    return load_or_explain(ref, "configuration", lambda: AutoConfig.from_pretrained(**arguments))


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

    return load_or_explain(ModelRef(config.name_or_path or config.model_type), "architecture", build)


def check_loads_again(model: Any) -> None:
    """Raise ValueError where transformers saves `model` under a configuration that it cannot load as a language model."""
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not getattr(model.config, "auto_map", None):
        raise ValueError(
            f"{type(model).__name__} ({model.name_or_path}) would be saved with a {type(model.config).__name__}, and "
            "transformers' AutoModelForCausalLM could not load it again. It can be a source, not the pivot."
        )
