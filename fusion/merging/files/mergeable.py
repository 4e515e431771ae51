"""Whether checkpoints can be merged: names, shapes and types of tensors, and what config.json says that they compute."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from fusion.core.settings import suggest
from fusion.merging.files.checkpoint import EMBEDDING_NAMES, HEAD_NAME, LAYER, OTHER_HEAD_NAMES, Checkpoint
from fusion.merging.files.config_comparison import (
    SHAPE_KEYS,
    ConfigDifference,
    all_keys,
    code_difference,
    compare_configs,
)
from fusion.merging.files.safetensors_file import DTYPE_BYTES, FLOAT_DTYPES, TensorEntry
from fusion.models.checkpoint_files import shown

BUFFER = re.compile(r"(?:^|\.)(?:(?:original_)?inv_freq|(?:cos|sin)_cached|masked_bias|position_ids|token_type_ids)$")
"""A tensor that the model computes itself, by name; old versions of libraries stored it beside the weights."""
CAUSAL_MASK = re.compile(r"(?:^|\.)(?:attn|attention)\.bias$")
"""The name of a causal mask, another such tensor, where it has four dimensions: a bias has one."""
QUANTIZED = re.compile(
    r"\.(?:qweight|qzeros|scales|g_idx|absmax|quant_map|quant_state\.\S+|SCB|weight_format|weight_scale(?:_inv)?|input_scale|"
    r"weight_packed|weight_shape|weight_zero_point)$"
)
"""Names that programs give to what belongs to weights of few bits."""


def check_mergeable(
    base: Checkpoint, models: Sequence[Checkpoint], *, pad: bool = False, allow_different: Sequence[str] = ()
) -> list[str]:
    """Return what differs between the models and is no problem, a sentence each, or raise ValueError with every problem.

    Problems are names, shapes, types, architecture, and keys of config.json that change what weights compute, unless
    `allow_different` names them. With `pad` the number of rows of embeddings and heads may differ. Reads no weights, except
    where a model stores a head that the base ties.
    """
    problems = [problem for name, entry in base.entries.items() for problem in _dtype_problems(base, name, entry)]
    problems += _config_problems(base)  # the others have to have the base's tensors, and so has the result
    notes = []
    for model in models:
        architecture, said = _architecture_problems(base, model, pad, frozenset(allow_different))
        problems += architecture or _tensor_problems(base, model, pad)
        notes += said + buffer_notes(base, model)
    raise_all(problems or _unknown_keys([base, *models], allow_different))
    return notes


def raise_all(problems: Sequence[str]) -> None:
    """Raise ValueError with up to twenty of the problems, if there are any."""
    if problems:
        shown = [*problems[:20], *([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])]
        raise ValueError("These checkpoints cannot be merged:\n  " + "\n  ".join(shown))


def _dtype_problems(base: Checkpoint, name: str, entry: TensorEntry) -> list[str]:
    if QUANTIZED.search(name):
        return [f"{base.folder}: {name} belongs to weights of few bits, which cannot merge; dequantize first"]
    if entry.dtype in DTYPE_BYTES:
        return []
    return [
        f"{base.folder}: {name} is {entry.dtype}; only {', '.join(FLOAT_DTYPES)} and integers can merge; dequantize first"
    ]


def _config_problems(base: Checkpoint) -> list[str]:
    """What the base's config.json says that it has, and it has not: layers, and a head of its own."""
    held = {int(match[1]) for name in base.entries if (match := LAYER.search(name))}
    lost = [layer for layer in range(base.num_layers) if held and layer not in held]
    problems = (
        [f"{base.folder}: config.json has {base.num_layers} layers, and {lost[0]} has no tensors"] if lost else []
    )
    causal = any(name.endswith("ForCausalLM") for name in base.config.get("architectures") or [])
    heads = [name for name in base.entries if name.endswith((HEAD_NAME, *OTHER_HEAD_NAMES))]
    if causal and base.tie_setting is False and not heads:
        problems.append(f"{base.folder}: config.json has tie_word_embeddings: false, and there is no {HEAD_NAME}")
    return problems


def _architecture_problems(
    base: Checkpoint, model: Checkpoint, pad: bool, allowed: frozenset[str]
) -> tuple[list[str], list[str]]:
    """What keeps the model from computing what the base's config.json says, and what differs without doing so."""
    expected, actual = base.config, model.config
    keys = [key for key in ("model_type", "architectures") if expected.get(key) != actual.get(key)]
    if keys:
        return [
            f"{model.folder}: {k} is {actual.get(k)!r}, the base {base.folder} has {expected.get(k)!r}" for k in keys
        ], []
    found = [each for each in compare_configs(expected, actual) if not (pad and each.name == "vocab_size")]
    refused = [each for each in found if each.matters and not each.is_named_by(allowed)]
    problems = [_difference_problem(base, model, each) for each in refused]
    have_code = "auto_map" in expected and "auto_map" in actual and "auto_map" not in allowed
    if have_code and (name := code_difference(base.folder, model.folder)):
        way_out = "--allow-different auto_map takes the base's"
        problems.append(f"{model.folder}: {name} is other code than that of the base {base.folder}; {way_out}")
    said = ", ".join(f"{d.key} {d.values()[0]} (base: {d.values()[1]})" for d in found if d not in refused)
    return problems, [f"{model.folder} has {said}; the result has the base's."] if said else []


def _difference_problem(base: Checkpoint, model: Checkpoint, difference: ConfigDifference) -> str:
    actual, expected = difference.values()
    hint = f"; --allow-different {difference.name} takes the base's" if difference.name not in SHAPE_KEYS else ""
    hint = "; --vocabulary pad lets rows of tokens differ" if difference.name == "vocab_size" else hint
    return f"{model.folder}: {difference.key} is {actual}, the base {base.folder} has {expected}{hint}"


def _unknown_keys(checkpoints: Sequence[Checkpoint], allow_different: Sequence[str]) -> list[str]:
    """What `allow_different` names and no config.json has."""
    if not allow_different:
        return []
    known = set().union(*(all_keys(checkpoint.config) for checkpoint in checkpoints))
    return [f"allow_different: no config.json has {k}{suggest(k, known)}" for k in allow_different if k not in known]


def is_buffer(name: str, entry: TensorEntry) -> bool:
    """Whether a tensor is none of the weights, but what the model computes from its configuration: the base's is kept."""
    return BUFFER.search(name) is not None or (CAUSAL_MASK.search(name) is not None and len(entry.shape) == 4)


def buffer_notes(base: Checkpoint, model: Checkpoint) -> list[str]:
    """Say which buffers only one of the two has."""
    first, second = (
        {name for name, entry in checkpoint.entries.items() if is_buffer(name, entry)} for checkpoint in (base, model)
    )
    notes = []
    if extra := sorted(second - first):
        notes.append(f"{model.folder}: {shown(extra, 1)}, computed from config.json, not in the base: left out.")
    if missing := sorted(first - second):
        notes.append(
            f"{model.folder}: {shown(missing, 1)}, computed from config.json, in the base alone: kept as it is."
        )
    return notes


def _tensor_problems(base: Checkpoint, model: Checkpoint, pad: bool) -> list[str]:
    weights = [name for name, entry in base.entries.items() if not is_buffer(name, entry)]
    problems = [problem for name in weights if (problem := _tensor_problem(base, model, name, pad=pad))]
    others = [name for name, entry in model.entries.items() if name not in base.entries and not is_buffer(name, entry)]
    extra = [name for name in others if not _repeats_embedding(base, model, name)]
    if base.tie_setting is True and HEAD_NAME in base.entries and _has_own_head(model):
        problems.append(
            f"{model.folder}: {HEAD_NAME} is not its embedding, and the base {base.folder} ties the two (tie_word_embeddings); "
            "give a base that does not, or a model whose head is its embedding"
        )
    return problems + [
        f"{model.folder}: {name} is extra; the base {base.folder} lacks it{_cause(name)}" for name in extra
    ]


def _has_own_head(model: Checkpoint) -> bool:
    """Whether a head is stored that is not the embedding."""
    if HEAD_NAME not in model.entries:
        return False
    embeddings = [entry for name, entry in model.entries.items() if name.endswith(EMBEDDING_NAMES)]
    return not any(_has_bytes_of(model.entries[HEAD_NAME], entry) for entry in embeddings)


def _has_bytes_of(first: TensorEntry, second: TensorEntry) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.read_bytes(0, first.size), second.read_bytes(0, second.size))


def _cause(name: str) -> str:
    return "; it belongs to weights of few bits: dequantize the model first" if QUANTIZED.search(name) else ""


def _tensor_problem(base: Checkpoint, model: Checkpoint, name: str, *, pad: bool) -> str | None:
    """Why the model's tensor cannot be merged with the base's, or None where it can."""
    expected, actual = base.entries[name], model.find(name)
    if actual is None:
        return f"{model.folder}: {name} is missing; the base {base.folder} has it"
    if actual.shape != expected.shape:
        rows_differ = differs_in_vocabulary_only(name, actual, expected)
        hint = "; --vocabulary pad lets rows of tokens differ" if rows_differ else ""
        shapes = f"has shape {actual.shape}, the base {base.folder} has {expected.shape}"
        if not (pad and rows_differ):
            return f"{model.folder}: {name} {shapes}{hint}"
    if actual.dtype != expected.dtype and not (actual.is_floating and expected.is_floating):
        return f"{model.folder}: {name} is {actual.dtype}, the base {base.folder} has {expected.dtype}"
    return None


def differs_in_vocabulary_only(name: str, actual: TensorEntry, expected: TensorEntry) -> bool:
    """Whether both are an embedding or a head, alike but perhaps for the number of tokens."""
    has_token_rows = name.endswith((HEAD_NAME, *EMBEDDING_NAMES)) and actual.is_floating and expected.is_floating
    return has_token_rows and len(expected.shape) == 2 and actual.shape[1:] == expected.shape[1:]


def _repeats_embedding(base: Checkpoint, model: Checkpoint, name: str) -> bool:
    """Whether `name` is a head the base ties and the model stores once more, equal to the model's embedding."""
    tied = base.find(name)
    twin = next((n for n, entry in base.entries.items() if entry is tied), None)
    return twin in model.entries and _has_bytes_of(model.entries[twin], model.entries[name])
