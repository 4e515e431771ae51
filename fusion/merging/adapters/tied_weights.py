"""Names of an adapter as those of its base, where an embedding and a head may be one tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fusion.merging.adapters.adapter_tensors import AdapterTensors
from fusion.merging.adapters.tensor_updates import LowRankUpdate, TensorUpdate, TokenUpdate
from fusion.merging.files.checkpoint import HEAD_NAME, OTHER_HEAD_NAMES, Checkpoint
from fusion.merging.files.safetensors_file import TensorEntry


def whole_tensors(base: Checkpoint, tensors: AdapterTensors) -> dict[str, TensorEntry]:
    """The tensors that replace the base's, by the base's names.

    Raises ValueError for a tensor that the base does not have, and where one that is tied gets two values.
    """
    found: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in tensors.whole.items():
        stored = base.stored_name(name)
        if stored is None or not entry.is_floating:
            raise ValueError(
                f"{tensors.folder}: {tensors.saved_as[name]} is neither part of an update that is known nor a tensor of the "
                f"base {base.folder}. Give the base that it was trained on, or fold it in with peft (merge_and_unload) first."
            )
        found.setdefault(stored, {})[name] = entry
    for stored, entries in found.items():
        _check_whole(base, tensors, stored, entries)
    return {stored: next(iter(entries.values())) for stored, entries in found.items()}


def check_tied(base: Checkpoint, tensors: AdapterTensors, found: Mapping[str, Mapping[str, TensorUpdate]]) -> None:
    """Raise ValueError where a tensor that an embedding and a head share is changed for one of them, or differently."""
    for stored, updates in found.items():
        first, *others = updates.values()
        if not all(_are_equal(first, other) for other in others):
            raise _two_values(base, tensors, list(updates))
        if not isinstance(first, TokenUpdate):  # which peft applies to both by itself
            _check_both(base, tensors, stored, list(updates))


def _check_whole(base: Checkpoint, tensors: AdapterTensors, stored: str, entries: Mapping[str, TensorEntry]) -> None:
    first, *others = entries.values()
    for other in others:
        same = (first.dtype, first.shape) == (other.dtype, other.shape)
        if not same or not torch.equal(first.read_bytes(0, first.size), other.read_bytes(0, other.size)):
            raise _two_values(base, tensors, list(entries))
    if not tensors.frozen.issuperset(entries):
        _check_both(base, tensors, stored, list(entries))


def _check_both(base: Checkpoint, tensors: AdapterTensors, stored: str, names: list[str]) -> None:
    """Raise ValueError where `stored` is an embedding and a head, and `names` only one of them."""
    has_head = any(name.endswith((HEAD_NAME, *OTHER_HEAD_NAMES)) for name in base.entries)
    if not has_head and base.stored_name(HEAD_NAME) == stored and len(names) == 1:
        other = stored if names[0].endswith(HEAD_NAME) else HEAD_NAME
        raise ValueError(
            f"{tensors.folder}: it changes {names[0]} and not {other}, which are one tensor in the base {base.folder} "
            "(tie_word_embeddings). Train it with ensure_weight_tying=True, or untie the base first: save it with "
            f"tie_word_embeddings: false and a {HEAD_NAME} of its own."
        )


def _two_values(base: Checkpoint, tensors: AdapterTensors, names: list[str]) -> ValueError:
    return ValueError(
        f"{tensors.folder}: it changes {' and '.join(names)} differently, which are one tensor in the base {base.folder} "
        "(tie_word_embeddings). Train it with ensure_weight_tying=True, or untie the base first: save it with "
        f"tie_word_embeddings: false and a {HEAD_NAME} of its own."
    )


def _are_equal(one: TensorUpdate, other: TensorUpdate) -> bool:
    if isinstance(one, TokenUpdate) and isinstance(other, TokenUpdate):
        return one.indices == other.indices and torch.equal(one.values, other.values)
    return isinstance(one, LowRankUpdate) and one.equals(other)
