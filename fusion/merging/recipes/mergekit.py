"""mergekit's YAML as a recipe of ours, for the methods that both have; what would give another result is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusion.core.settings import suggest
from fusion.merging.recipes.mergekit_forms import MergekitMerge, TokenizerForm, read_forms, shortened
from fusion.merging.recipes.mergekit_parameters import PARAMETERS, check_parameters, schedule, truth
from fusion.merging.recipes.mergekit_slices import MergedSlice, merged_slices, slice_base

OTHER_METHODS = ("nearswap", "arcee_fusion", "ram", "ramplus_tl")
"""mergekit's methods that are not here."""
WITHOUT_BASE = ("linear", "karcher", "passthrough")
"""Methods in which the base is a model like the others, or none, and else gives configuration and tokenizer."""
ORIGIN = ("nuslerp", "multislerp")
"""Methods that see directions from the base where there is one."""
EFFECTS = {"nuslerp_flatten": True, "nuslerp_row_wise": False, "normalize_weights": True, "filter_wise": False}
"""Truth values that have no counterpart, with the only one that can be taken over, mergekit's default."""
TYPES = {"float32", "bfloat16", "float16"}
FILE_KEYS = {"merge_method", "slices", "modules", "gate_mode", "experts", "genome"}
"""Keys of which one is enough to tell mergekit's file from ours."""


def is_mergekit(raw: dict[str, Any]) -> bool:
    """Whether these are the keys of a mergekit configuration."""
    if "pivot" in raw or "method" in raw:
        return "merge_method" in raw
    models = raw.get("models")
    entries = models if isinstance(models, list) else []
    return bool(FILE_KEYS & raw.keys()) or any(isinstance(entry, dict) and "parameters" in entry for entry in entries)


def to_recipe_keys(raw: dict[str, Any], origin: str) -> dict[str, Any]:
    """Convert to the keys of a recipe; `origin` names the file in messages. Raises ValueError for what has no counterpart."""
    try:
        return _convert(read_forms(raw))
    except ValueError as error:
        raise ValueError("\n".join(f"{origin}: {line}" for line in str(error).splitlines())) from None


def _convert(merge: MergekitMerge) -> dict[str, Any]:
    kind = merge.merge_method
    _check_kind(kind)
    base, slices = slice_base(merge), merged_slices(merge)
    check_parameters(kind, slices)
    models = _merged_models(kind, slices, base)
    tokenizer_source = _tokenizer_source(merge, base or models[0], models)
    keys = {
        "base_model": None if kind == "slerp" else base,  # which is the first of its two models
        "models": [{"model": model, **_own_settings(kind, slices, model)} for model in models],
        "method": _method(kind, slices, models, has_base=base is not None),
        "dtype": _dtype(merge),
        "tokenizer_source": tokenizer_source,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _check_kind(kind: str) -> None:
    if kind in OTHER_METHODS:
        raise ValueError(f"merge_method {kind} is not here; there are {', '.join(PARAMETERS)}.")
    if kind not in PARAMETERS:
        raise ValueError(f"there is no merge_method {shortened(kind)}{suggest(kind, set(PARAMETERS))}")


def _merged_models(kind: str, slices: Sequence[MergedSlice], base: str | None) -> list[str]:
    """The models that are merged, without the base where it is what they are compared with; for slerp the base is first."""
    listed = list(dict.fromkeys(model for part in slices for model in part.sources))
    if kind == "passthrough" and (several := [part for part in slices if len(part.sources) > 1]):
        raise ValueError(
            f"passthrough takes one model at a time, got {', '.join(several[0].sources)}; linear averages."
        )
    if kind in WITHOUT_BASE:
        return listed
    if base is None and kind not in ORIGIN:
        raise ValueError(f"base_model is missing; {kind} compares the models with it.")
    others = [model for model in listed if model != base]
    if kind == "slerp":
        if base is None or len(others) != 1:
            raise ValueError(f"slerp takes base_model and one other model, got {len(others)} others.")
        return [base, *others]
    if not others:
        raise ValueError(f"models lists nothing but the base_model {base}; list what is merged into it.")
    return others


def _own_settings(kind: str, slices: Sequence[MergedSlice], model: str) -> dict[str, Any]:
    """The keys `weight` and `density` of one model. Raises ValueError where mergekit would miss one."""
    if kind == "passthrough":  # a sum in which each tensor comes from one model
        return {"weight": schedule("scale", kind, slices, model=model)}
    sparsified = kind != "task_arithmetic"  # where mergekit knows a density, and does nothing with it
    names = [name for name in ("weight", "density") if name in PARAMETERS[kind] and (name == "weight" or sparsified)]
    return {name: schedule(name, kind, slices, model=model) for name in names}


def _method(kind: str, slices: Sequence[MergedSlice], models: Sequence[str], *, has_base: bool) -> dict[str, Any]:
    """The kind and settings of the method, mergekit's defaults written out."""
    if kind == "passthrough":
        return {"kind": "linear", "normalize": False}
    settings: dict[str, Any] = {"kind": kind}
    for name, parameter in PARAMETERS[kind].items():
        if name == "rescale" or name in EFFECTS:
            _check_effect(kind, name, truth(name, kind, slices))
        elif name == "normalize":
            settings[name] = truth(name, kind, slices)
        elif name in ("gamma", "epsilon"):
            values = [_gamma_or_epsilon(name, kind, slices, model) for model in models]
            settings[name] = values[0] if all(value == values[0] for value in values) else values
        elif not parameter.per_model and name != "tol":  # karcher goes on until its steps vanish
            settings[name] = schedule(name, kind, slices)
    if has_base and kind in ORIGIN:
        settings["origin"] = "base"
    return {name: value for name, value in settings.items() if value is not None}


def _gamma_or_epsilon(name: str, kind: str, slices: Sequence[MergedSlice], model: str) -> Any:
    """The value for one model; 0 where mergekit looks at none, since with density 1 it keeps everything."""
    keeps_all = schedule("density", kind, slices, model=model) == 1
    return 0.0 if keeps_all else schedule(name, kind, slices, model=model)


def _check_effect(kind: str, name: str, value: bool | None) -> None:
    # what random methods keep is always rescaled so that its expectation stays; nothing else ever is
    allowed = kind.startswith(("dare", "della")) if name == "rescale" else EFFECTS[name]
    if value not in (None, allowed):
        raise ValueError(
            f"{name}: {str(value).lower()} cannot be taken over for {kind}; here it is always {str(allowed).lower()}."
        )


def _tokenizer_source(merge: MergekitMerge, base: str, models: Sequence[str]) -> str | None:
    """The model whose tokenizer the result has, or `base`; None where none is named. Raises ValueError for a new one."""
    if merge.tokenizer_source is not None and merge.tokenizer is not None:
        raise ValueError("tokenizer_source and tokenizer say the same; leave out tokenizer_source.")
    form = merge.tokenizer or TokenizerForm(source=merge.tokenizer_source or "base")
    key = "tokenizer.source" if merge.tokenizer else "tokenizer_source"
    if form.source not in ("base", base, *models):
        raise ValueError(
            f"{key} is {shortened(form.source)}; the result has the tokenizer of {base} (base) or of one of "
            f"{', '.join(models)}. Write one of these, and --vocabulary pad where they have other numbers of tokens."
        )
    for name, value in (("tokens", form.tokens), ("pad_to_multiple_of", form.pad_to_multiple_of)):
        if value:
            raise ValueError(
                f"tokenizer.{name} cannot be taken over: the base's tokens stay as they are; leave it out."
            )
    named = merge.tokenizer is not None or merge.tokenizer_source is not None
    return "base" if named and form.source in ("base", base) else form.source if named else None


def _dtype(merge: MergekitMerge) -> str | None:
    """The type of the result, which is out_dtype, or dtype, in which mergekit also computes."""
    for key in ("out_dtype", "dtype"):
        value = getattr(merge, key)
        if value is not None:
            if value.removeprefix("torch.") not in TYPES:
                raise ValueError(f"{key} is {shortened(value)}; a result is {', '.join(sorted(TYPES))}.")
            return value.removeprefix("torch.")
    return None
