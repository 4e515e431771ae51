"""Tensors that only some checkpoints have, or that are no weights: which are merged, kept as the base has them, or left out."""

from __future__ import annotations

import re

import torch

from fusion.merging.architecture import unloaded_tensors
from fusion.merging.files.checkpoint import Checkpoint
from fusion.merging.files.safetensors_file import TensorEntry
from fusion.models.checkpoint_files import shown

BUFFER = re.compile(r"(?:^|\.)(?:(?:original_)?inv_freq|(?:cos|sin)_cached|masked_bias|position_ids|token_type_ids)$")
"""A tensor that the model computes itself, by name; old versions of libraries stored it beside the weights."""
CAUSAL_MASK = re.compile(r"(?:^|\.)(?:attn|attention)\.bias$")
"""The name of a causal mask, another such tensor, where it has four dimensions: a bias has one."""


def is_buffer(name: str, entry: TensorEntry) -> bool:
    """Whether a tensor is none of the weights, but what the model computes from its configuration: the base's is kept."""
    return BUFFER.search(name) is not None or (CAUSAL_MASK.search(name) is not None and len(entry.shape) == 4)


def lone_notes(base: Checkpoint, model: Checkpoint) -> list[str]:
    """Say which buffers, and which tensors that the architecture does not load, only one of the two has."""
    first, second = (
        {name for name, entry in checkpoint.entries.items() if is_buffer(name, entry)} for checkpoint in (base, model)
    )
    missing, extra = unloaded(base, model)
    computed, unread = "computed from config.json", "which transformers does not load"
    lines = (
        (sorted(second - first), computed, "not in the base: left out"),
        (sorted(first - second), computed, "in the base alone: kept as it is"),
        (extra, unread, "not in the base: left out"),
        (missing, unread, "in the base alone: kept as it is"),
    )
    return [f"{model.folder}: {shown(names, 1)}, {what}, {where}." for names, what, where in lines if names]


def unloaded(base: Checkpoint, model: Checkpoint) -> tuple[list[str], list[str]]:
    """Tensors that only the base has, and that only the model has, of those that transformers neither loads nor saves."""
    missing = [name for name, entry in base.entries.items() if model.find(name) is None and not is_buffer(name, entry)]
    extra = extra_weights(base, model)
    pattern = unloaded_tensors(base.config) if missing or extra else None
    if pattern is None:
        return [], []
    return [name for name in missing if pattern.search(name)], [name for name in extra if pattern.search(name)]


def extra_weights(base: Checkpoint, model: Checkpoint) -> list[str]:
    """Weights of the model that stand for none of the base's."""
    found = {model.stored_name(name) for name in base.entries}
    others = [name for name, entry in model.entries.items() if name not in found and not is_buffer(name, entry)]
    return [name for name in others if not _repeats_embedding(base, model, name)]


def _repeats_embedding(base: Checkpoint, model: Checkpoint, name: str) -> bool:
    """Whether `name` is a head the base ties and the model stores once more, equal to the model's embedding."""
    tied = base.find(name)
    twin = next((n for n, entry in base.entries.items() if entry is tied), None)
    return twin in model.entries and has_bytes_of(model.entries[twin], model.entries[name])


def has_bytes_of(first: TensorEntry, second: TensorEntry) -> bool:
    """Whether two tensors are equal to the bit."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.read_bytes(0, first.size), second.read_bytes(0, second.size))
