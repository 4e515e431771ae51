"""Whether the tensors of a checkpoint are those of the model that its configuration describes.

transformers fills what it does not find with random numbers and leaves out what it has no place for, and goes on. Here both
are refused by name, except for whole modules that the model does not have, such as a vision tower.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from fusion.models.checkpoint_files import refuse_integers, shown, stored_tensors
from fusion.models.notices import mention_once

COMPUTED = {"inv_freq", "cos_cached", "sin_cached", "masked_bias", "causal_mask", "position_ids"}
"""Last part of the names of buffers that old checkpoints hold and every model computes by itself."""
UNREADABLE = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, RuntimeError),
    StrictDataclassError,
)
"""What transformers raises for a configuration whose values are of another kind than it counts on."""
QUANTIZED = re.compile(
    r"(scale|scale_inv|scales|zeros|zero_point|qweight|g_idx|weight_packed|absmax|quant_map|quant_state\S*|SCB)$"
)
"""How the tensors end that belong to quantized weights."""


def check_folder(folder: Path) -> None:
    """Check the weights in a model folder against its config.json, reading headers only.

    Raises ValueError where they do not fit, and for what `stored_tensors` refuses. A configuration that transformers does not
    know as a causal language model, one that needs remote code, and quantized weights are not compared.
    """
    stored = stored_tensors(folder)
    refuse_integers(folder, stored)
    try:
        config = AutoConfig.from_pretrained(folder)
    except UNREADABLE:
        return  # whoever loads it says why
    known: Any = AutoModelForCausalLM._model_mapping  # type: ignore[attr-defined]
    if type(config) not in known or getattr(config, "quantization_config", None) is not None:
        return
    tensors = {name: torch.empty(t.shape, device="meta") for name, t in stored.items()}
    options = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    options |= {"config": config, "state_dict": tensors, "device_map": {"": "meta"}}
    try:
        model, info = known[type(config)].from_pretrained(None, **options)
    except UNREADABLE:
        return
    check_loaded(str(folder), model, info)


def check_loaded(path: str, model: Any, info: Mapping[str, Any]) -> None:
    """Raise ValueError with all that is wrong with a model just loaded; `info` is what transformers says of its loading.

    `path` names the model, `info` comes from `output_loading_info=True`. Tensors of modules that the model does not have are
    mentioned once in the log.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    dropped, foreign = _sorted_out(model, unexpected)
    problems = [_count(missing, "that the model has are not in its files")] if missing else []
    problems += _shape_problems(sorted(info["mismatched_keys"]))
    problems += [_count(dropped, "in its files would be left out of the model")] if dropped else []
    if missing and unexpected and not dropped:
        problems.append(_count(unexpected, "in its files have no place in the model"))
    if broken := _all_nan(model):
        problems.append(f"{shown(broken)} {'is' if len(broken) == 1 else 'are'} NaN throughout")
    if problems:
        raise ValueError(
            f"The weights of {path} are not those of the model that its config.json describes:\n  "
            + "\n  ".join([*problems, _way_out(model, missing, unexpected, dropped)])
        )
    _refuse_other_head(path, model)
    if foreign:
        mention_once(
            f"{path}: {_count(foreign, 'belong to modules that the language model does not have')}, and are not used."
        )


def _shape_problems(mismatched: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> list[str]:
    lines = [f"{n} has shape {tuple(a)} in the files and {tuple(b)} in the model" for n, a, b in mismatched[:3]]
    return lines + ([f"and {len(mismatched) - 3} more have other shapes"] if len(mismatched) > 3 else [])


def _count(names: list[str], what: str) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} {what}: {shown(names)}"


def _sorted_out(model: nn.Module, unexpected: Collection[str]) -> tuple[list[str], list[str]]:
    """Split tensors that were not loaded into those of the model's own modules and those of modules that it does not have."""
    modules, buffers = dict(model.named_modules()), {name for name, _ in model.named_buffers()}
    names = sorted(name for name in unexpected if name.rsplit(".", 1)[-1] not in COMPUTED and name not in buffers)
    is_quantized = getattr(model, "hf_quantizer", None) is not None  # its format decides what is used
    dropped = [name for name in names if not is_quantized and _belongs(model, modules, name)]
    return dropped, sorted(set(names) - set(dropped))


def _belongs(model: Any, modules: Mapping[str, nn.Module], name: str) -> bool:
    """Whether the innermost module of the model that the name leads to is one that computes, not one that only holds others."""
    parts = name.split(".")
    owners = (end for end in range(len(parts) - 1, 0, -1) if ".".join(parts[:end]) in modules)
    if (end := next(owners, 0)) == 0:
        return False
    owner = ".".join(parts[:end])
    if isinstance(modules[owner], nn.ModuleList) and parts[end].isdigit():
        return not _predicts_further_tokens(model, int(parts[end]))
    return not any(inner.startswith(f"{owner}.") for inner in _embedding_names(model, modules))


def _embedding_names(model: Any, modules: Mapping[str, nn.Module]) -> list[str]:
    embedding = model.get_input_embeddings()
    return [name for name, module in modules.items() if module is embedding]


def _predicts_further_tokens(model: Any, layer: int) -> bool:
    """Whether a layer beyond the last is one for multi-token prediction, which language models do not load."""
    config = model.config.get_text_config()
    return layer < config.num_hidden_layers + (getattr(config, "num_nextn_predict_layers", None) or 0)


def _all_nan(model: nn.Module) -> list[str]:
    found = []
    for name, weight in model.named_parameters():
        # the first entry tells almost always, so the rest of large weights need not be read
        if (
            weight.is_floating_point()
            and not weight.is_meta
            and weight.flatten()[:1].isnan().any()
            and weight.isnan().all()
        ):
            found.append(name)
    return found


def _refuse_other_head(path: str, model: Any) -> None:
    """Raise ValueError where the configuration ties the head to the embeddings and the files hold another head."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    expected = any(name.endswith(".weight") for name in getattr(model, "_tied_weights_keys", None) or ())
    if tied and expected and head is not None and not head.weight.is_meta and head.weight is not embedding.weight:
        raise ValueError(
            f"{path}: config.json has tie_word_embeddings: true, and the files hold a head that differs from the embeddings. "
            "Libraries differ in which one they take: set tie_word_embeddings to false there, or delete the head's tensor."
        )


def _way_out(model: Any, missing: list[str], unexpected: list[str], dropped: list[str]) -> str:
    names = [*unexpected, *dropped]
    if any(QUANTIZED.search(name) for name in names):
        return (
            "The files hold quantized weights, and config.json has no quantization_config: copy the one from where they come "
            "from, or use the weights before quantization."
        )
    if any("lora_" in name or ".base_layer." in name for name in names):
        return "The files hold an adapter: merge it into the model (merge_and_unload of peft) and save that."
    if missing and (renamed := _renamed(missing, unexpected)):
        return renamed
    if missing and all(name.startswith(("lm_head.", "embed_out.", "output.")) for name in missing):
        return "Where the head is the embeddings' own matrix, set tie_word_embeddings: true in config.json."
    if dropped and all(name.endswith(".bias") for name in dropped):
        return "Set in config.json what gives the model these (attention_bias, mlp_bias or the like), or another model_type."
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", "?")
    return (
        f"Copy config.json and all weight files from the same model (config.json has model_type {model.config.model_type}, "
        f"num_hidden_layers {layers})."
    )


def _renamed(missing: list[str], unexpected: list[str]) -> str | None:
    """What to do where the files have the model's tensors under names with another beginning; None where they do not."""
    if not unexpected:
        return None
    name = max(missing, key=lambda name: name.count("."))
    other = min(unexpected, key=lambda other: len(_beginnings(other, name)[0]) - len(other))
    there, here = _beginnings(other, name)
    if there.startswith(other) or re.search(r"\.\d", here):  # nothing in common, or names differ inside a layer
        return None
    tails = {other.removeprefix(there) for other in unexpected if other.startswith(there)}
    if not all(n.removeprefix(here) in tails for n in missing if n.startswith(here)):
        return None
    return (
        f"Names in the files begin with `{there}` where the model's begin with {f'`{here}`' if here else 'nothing'}, for "
        f"example {other} for {name}. Rename the tensors, or load them with the class that wrote them and call save_pretrained "
        "of the language model inside."
    )


def _beginnings(one: str, two: str) -> tuple[str, str]:
    """What is left of two names without the parts at the end that they share."""
    a, b = one.split("."), two.split(".")
    same = 0
    while same < min(len(a), len(b)) and a[-1 - same] == b[-1 - same]:
        same += 1
    return "".join(f"{part}." for part in a[: len(a) - same]), "".join(f"{part}." for part in b[: len(b) - same])
