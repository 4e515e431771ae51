"""Whether checkpoints can be merged: names, shapes and types of tensors, and what config.json says that they compute."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fusion.core.settings import suggest
from fusion.merging.files.checkpoint import (
    EMBEDDING_NAMES,
    HEAD_BIASES,
    HEAD_NAME,
    LAYER,
    OTHER_HEAD_NAMES,
    Checkpoint,
)
from fusion.merging.files.config_comparison import (
    SHAPE_KEYS,
    ConfigDifference,
    all_keys,
    code_difference,
    compare_configs,
)
from fusion.merging.files.lone_tensors import extra_weights, has_bytes_of, is_buffer, lone_notes, unloaded
from fusion.merging.files.safetensors_file import DTYPE_BYTES, FLOAT_DTYPES, TensorEntry
from fusion.models.checkpoint_files import shown

MANY = 20
"""Problems of which no more are shown."""

QUANTIZED = re.compile(
    r"\.(?:qweight|qzeros|scales|g_idx|absmax|quant_map|quant_state\.\S+|SCB|weight_format|weight_scale(?:_inv)?|input_scale|"
    r"weight_packed|weight_shape|weight_zero_point)$"
)
"""Names that programs give to what belongs to weights of few bits."""
QUANTIZATION = "quantization_config"
WRAPPER = "FSDP"
"""What a wrapper for training puts before the name of a class, where it was saved with it."""


def check_mergeable(
    base: Checkpoint, models: Sequence[Checkpoint], *, pad: bool = False, allow_different: Sequence[str] = ()
) -> list[str]:
    """Return what differs between the models and is no problem, a sentence each, or raise ValueError with every problem.

    Problems are names, shapes, types, architecture, and keys of config.json that change what weights compute, unless
    `allow_different` names them. With `pad` the number of rows of embeddings and heads may differ. Reads no weights, except
    where a model stores a head that the base ties.
    """
    few_bits = _few_bits(base)
    problems = few_bits + _config_problems(base)  # the others have to have the base's tensors, and so has the result
    stale = f"{base.folder}: {QUANTIZATION} is left out of the result's config.json, for its weights are floating."
    notes = [stale] if _is_dequantized(base) else []
    for model in models:
        architecture, said = _architecture_problems(base, model, pad, frozenset(allow_different))
        problems += _few_bits(model) or architecture or ([] if few_bits else _tensor_problems(base, model, pad))
        notes += said + lone_notes(base, model)
    raise_all(problems or _unknown_keys([base, *models], allow_different))
    return notes


def raise_all(problems: Sequence[str]) -> None:
    """Raise ValueError with up to twenty of the problems, if there are any."""
    if problems:
        more = [f"... and {len(problems) - MANY} more"] if len(problems) > MANY else []
        raise ValueError("These checkpoints cannot be merged:\n  " + "\n  ".join([*problems[:MANY], *more]))


def _few_bits(checkpoint: Checkpoint) -> list[str]:
    """A sentence where weights are of few bits, or of another type that is not known, with the first of them."""
    stated = checkpoint.config.get(QUANTIZATION)
    method = f" ({stated['quant_method']})" if isinstance(stated, dict) and stated.get("quant_method") else ""
    few = [
        name for name, entry in checkpoint.entries.items() if QUANTIZED.search(name) or entry.dtype not in DTYPE_BYTES
    ]
    if not few:
        return []
    which = f"{shown(few, 1)} ({checkpoint.entries[few[0]].dtype})"
    return [
        f"{checkpoint.folder}: its weights are of few bits{method}, as {which}; only {', '.join(FLOAT_DTYPES)} can merge. "
        "Dequantize it first, or give the model that it was made from."
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
    if causal and base.is_tied is False and not heads:
        problems.append(
            f"{base.folder}: its head is not tied (tie_word_embeddings: false), and there is no {HEAD_NAME}"
        )
    return problems


def _architecture_problems(
    base: Checkpoint, model: Checkpoint, pad: bool, allowed: frozenset[str]
) -> tuple[list[str], list[str]]:
    """What keeps the model from computing what the base's config.json says, and what differs without doing so."""
    expected, actual = base.config, model.config
    if kind := _other_kind(base, model, allowed):
        return kind, []
    found = [each for each in compare_configs(expected, actual) if not (pad and each.name == "vocab_size")]
    refused = [each for each in found if each.matters and not each.is_named_by(allowed)]
    problems = [_difference_problem(base, model, each) for each in refused]
    have_code = "auto_map" in expected and "auto_map" in actual and "auto_map" not in allowed
    if have_code and (name := code_difference(base.folder, model.folder)):
        way_out = "--allow-different auto_map takes the base's"
        problems.append(f"{model.folder}: {name} is other code than that of the base {base.folder}; {way_out}")
    said = ", ".join(f"{d.key} {d.values()[0]} (base: {d.values()[1]})" for d in found if d not in refused)
    return problems, [f"{model.folder} has {said}; the result has the base's."] if said else []


def _other_kind(base: Checkpoint, model: Checkpoint, allowed: frozenset[str]) -> list[str]:
    """That it is of another architecture, or a classifier whose rows mean other labels."""
    first, second = (
        {key: checkpoint.config.get(key) for key in ("model_type", "id2label")}
        | {"architectures": plain_architectures(checkpoint.config)}
        for checkpoint in (model, base)
    )
    classifies = any("Classification" in name for name in second["architectures"] or [])
    # where one does not name its class, the tensors tell it; labels are left over in many a model without them
    stated = [key for key in ("architectures", *(["id2label"] if classifies else [])) if first[key] and second[key]]
    return [
        f"{model.folder}: {key} is {first[key]!r}, the base {base.folder} has {second[key]!r}"
        + ("" if key == "model_type" else f"; --allow-different {key} takes the base's")
        for key in ("model_type", *stated)
        if first[key] != second[key] and key not in allowed - {"model_type"}
    ]


def plain_architectures(config: Mapping[str, Any]) -> list[str] | None:
    """The classes that a config.json names, without the name of a wrapper before them."""
    names = config.get("architectures")
    return [name.removeprefix(WRAPPER) for name in names] if names else None


def result_config(base: Checkpoint) -> dict[str, Any]:
    """The configuration of what is merged into a base: no wrapper's name, and no settings of few bits that no tensor has."""
    names = plain_architectures(base.config)
    left_out = {QUANTIZATION} if _is_dequantized(base) else set()
    kept = {key: value for key, value in base.config.items() if key not in left_out}
    return kept | ({"architectures": names} if names else {})


def _is_dequantized(base: Checkpoint) -> bool:
    """Whether config.json speaks of weights of few bits, and all are floating by now."""
    return QUANTIZATION in base.config and all(e.is_floating or is_buffer(name, e) for name, e in base.entries.items())


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


def _tensor_problems(base: Checkpoint, model: Checkpoint, pad: bool) -> list[str]:
    missing, left_out = unloaded(base, model)
    weights = [name for name, entry in base.entries.items() if not is_buffer(name, entry) and name not in missing]
    problems = [problem for name in weights if (problem := _tensor_problem(base, model, name, pad=pad))]
    if base.is_tied is True and HEAD_NAME in base.entries and _has_own_head(model):
        problems.append(
            f"{model.folder}: {HEAD_NAME} is not its embedding, and the base {base.folder} ties the two (tie_word_embeddings); "
            "give a base that does not, or a model whose head is its embedding"
        )
    extra = [name for name in extra_weights(base, model) if name not in left_out]
    lines = problems + [f"{model.folder}: {name} is extra; the base {base.folder} lacks it" for name in extra]
    return _one_line_for_names(base, model, lines) if len(lines) > MANY else lines


def _one_line_for_names(base: Checkpoint, model: Checkpoint, lines: list[str]) -> list[str]:
    """Where hardly a name is in both, what names look like in either, which twenty lines of one kind would not show."""
    if sum(name in model.entries for name in base.entries) > len(base.entries) // 2:
        return lines
    return [
        f"{model.folder}: its tensors have other names than the base's: {shown(list(model.entries), 3)}; the base "
        f"{base.folder} has {shown(list(base.entries), 3)}. Load both with one version of transformers, and save them again."
    ]


def _has_own_head(model: Checkpoint) -> bool:
    """Whether a head is stored that is not the embedding."""
    if HEAD_NAME not in model.entries:
        return False
    embeddings = [entry for name, entry in model.entries.items() if name.endswith(EMBEDDING_NAMES)]
    return not any(has_bytes_of(model.entries[HEAD_NAME], entry) for entry in embeddings)


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
    """Whether both are an embedding, a head or its bias, alike but perhaps for the number of tokens."""
    has_token_rows = name.endswith((HEAD_NAME, *OTHER_HEAD_NAMES, *EMBEDDING_NAMES)) and len(expected.shape) == 2
    is_head_bias = name.endswith(HEAD_BIASES) and len(expected.shape) == 1
    floating = actual.is_floating and expected.is_floating
    return floating and (has_token_rows or is_head_bias) and actual.shape[1:] == expected.shape[1:]
