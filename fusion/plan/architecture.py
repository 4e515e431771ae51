"""The numbers of an architecture that cost depends on, from its configuration alone; no weights are read.

A configuration comes from the model's folder or the hub. Where neither can be reached, `architectures.json` holds the few
fields of a handful of public models: enough to plan with, and used for nothing else.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import constants, try_to_load_from_cache
from torch import nn
from transformers import AutoConfig

from fusion.models.loading import ModelRef, build_without_weights, load_config
from fusion.plan.known_sizes import known_sizes


@dataclass(frozen=True)
class Architecture:
    """A causal language model's sizes, in numbers (not bytes)."""

    parameters: int
    """Number of parameters, tied ones counted once."""
    active_parameters: int
    """Parameters of the layers' matrices that one token is multiplied with: of a mixture of experts, those it is routed to."""
    largest_tensor: int
    """Numbers of the largest parameter tensor."""
    largest_layer: int
    """Parameters of the largest layer."""
    layers: int
    hidden_size: int
    vocab_size: int
    """Rows of the head, padding included."""
    heads: int
    """Attention heads."""
    query_size: int
    """Heads times the width of a head."""
    key_size: int
    """The same for keys (and for values), which several queries may share (grouped-query attention)."""
    intermediate_size: int
    gated: bool
    """Whether the feed-forward part multiplies two projections (SwiGLU and its like)."""
    norm_size: int
    """Width of all normalisations of one layer together."""
    eager_attention: bool
    """Whether attention scores are written out, because no fused kernel knows the architecture."""
    bundled: bool = False
    """Whether this comes from architectures.json."""


def load_architecture(ref: ModelRef) -> Architecture:
    """Sizes from the model's own configuration, else from architectures.json. Raises ValueError where neither is there."""
    known = _bundled().get(ref.path)
    if known and ref.local_path is None and not _reachable(ref):
        return _describe_bundled(known)
    if sizes := _known(ref):
        return Architecture(**sizes)
    try:
        return describe(load_config(ref), ref.trust_remote_code)
    except ValueError as error:
        if known:  # the hub is there but does not give it: a gated model, for example
            return _describe_bundled(known)
        raise ValueError(
            f"{error} To plan, a folder with its config.json is enough; without any, {', '.join(_bundled())} are known."
        ) from error


def _known(ref: ModelRef) -> dict[str, Any] | None:
    """Sizes by what the folder's config.json says, without a model; None where they are not known."""
    file = None if ref.trust_remote_code or ref.local_path is None else ref.local_path / "config.json"
    try:
        return None if file is None else known_sizes(json.loads(file.read_text()))
    except (OSError, ValueError, AttributeError):  # which `load_config` explains
        return None


def _describe_bundled(fields: dict[str, Any]) -> Architecture:
    sizes = known_sizes(fields)
    return (
        replace(Architecture(**sizes), bundled=True)
        if sizes
        else describe(AutoConfig.for_model(**fields), bundled=True)
    )


def _reachable(ref: ModelRef) -> bool:
    """Whether the model's config.json is on this machine already, or the hub answers."""
    return isinstance(try_to_load_from_cache(ref.path, "config.json", revision=ref.revision), str) or _hub_answers()


@functools.cache
def _hub_answers() -> bool:
    """Whether the hub answers within seconds, tried once a process: loading a file without it would retry for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=5).close()
    except HTTPError:  # an answer too
        return True
    except OSError:
        return False
    return True


def describe(config: Any, trust_remote_code: bool = False, bundled: bool = False) -> Architecture:
    """Sizes of the model that this configuration describes, built without memory for its weights."""
    model = build_without_weights(config, trust_remote_code)
    text = config.get_text_config()
    layers, heads = _layers(model, text.num_hidden_layers), getattr(text, "num_attention_heads", 0)
    width = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0)
    shared = getattr(text, "num_key_value_heads", None) or heads
    matrices = {
        id(p): p.numel() * _visited(name, text) for name, p in layers.named_parameters() if p.ndim > 1
    }  # tied ones once
    many = {"q_norm": heads, "k_norm": shared}
    norms = sum(_norm_width(name, module, width, many) for name, module in layers[0].named_modules())
    return Architecture(
        parameters=sum(p.numel() for p in model.parameters()),
        active_parameters=round(sum(matrices.values())),
        largest_tensor=max(p.numel() for p in model.parameters()),
        largest_layer=max(sum(p.numel() for p in layer.parameters()) for layer in layers),
        layers=len(layers),
        hidden_size=text.hidden_size,
        vocab_size=model.get_output_embeddings().weight.shape[0],
        heads=heads,
        query_size=heads * width,
        key_size=shared * width,
        intermediate_size=_intermediate(text),
        gated=any("gate" in name for name, _ in layers[0].named_modules()),
        norm_size=norms,
        eager_attention=model.config._attn_implementation == "eager",
        bundled=bundled,
    )


def _layers(model: Any, count: int) -> nn.ModuleList:
    """The stack of layers. Raises ValueError for a model that has none."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count > 0:
            return module
    place = f" of {path}" if (path := getattr(model, "name_or_path", "")) else ""
    raise ValueError(
        f"{type(model).__name__}{place} has no list of {count} layers, by which its cost could be planned."
    )


def _intermediate(text: Any) -> int:
    """Width of the feed-forward part, by the names that families give it; four times the model's where none is said."""
    names = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    return next((size for name in names if (size := getattr(text, name, None))), 4 * text.hidden_size)


def _visited(name: str, text: Any) -> float:
    """The share of this parameter that one token is multiplied with: less than 1 in a mixture of experts."""
    experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None)
    if not experts or ".experts." not in f".{name}.":
        return 1.0
    return (getattr(text, "num_experts_per_tok", None) or experts) / experts


def _norm_width(name: str, module: nn.Module, width: int, many: dict[str, int]) -> int:
    """Numbers that a normalisation puts out for one token; one that works head by head has a weight as wide as a head."""
    weights = [p.numel() for p in module.parameters(recurse=False)]
    if "norm" not in name.lower() or not weights:
        return 0
    return weights[0] * (many.get(name.split(".")[-1], 1) if weights[0] == width else 1)


@functools.cache
def _bundled() -> dict[str, dict[str, Any]]:
    return json.loads((Path(__file__).parent / "architectures.json").read_text())
