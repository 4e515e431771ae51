"""mergekit's YAML as a recipe of ours, for the methods that both have; what would give another result is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object
from fusion.merging.recipes.mergekit_forms import check_forms

TASK_VECTOR_KINDS = (
    "task_arithmetic", "ties", "dare_linear", "dare_ties", "della_linear", "della", "breadcrumbs", "breadcrumbs_ties",
)  # fmt: skip
SHARED_KINDS = ("linear", "slerp", "nuslerp", "multislerp", "karcher", "model_stock", *TASK_VECTOR_KINDS, "sce")
DEFAULTS: dict[str, dict[str, Any]] = {
    **{name: {"normalize": name == "ties"} for name in TASK_VECTOR_KINDS},
    "sce": {"select_topk": 1.0},
    "linear": {"normalize": True},
    "nuslerp": {},
}
"""mergekit's defaults where ours are others, or where it leaves the choice to the method."""
WITHOUT_EFFECT = {"int8_mask": (True, False), "normalize_weights": (True,), "nuslerp_flatten": (True,), "rescale": ()}
"""Parameters that change nothing in the result, with the values of which that holds."""
KEYS = {
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source", "name",
}  # fmt: skip


def is_mergekit(raw: dict[str, Any]) -> bool:
    """Whether these are the keys of a mergekit configuration."""
    return "merge_method" in raw


def to_recipe_keys(raw: dict[str, Any], origin: str) -> dict[str, Any]:
    """Convert to the keys of a recipe; `origin` names the file in messages. Raises ValueError for what has no counterpart."""
    check_forms(raw, origin)
    kind = raw["merge_method"]
    if kind not in SHARED_KINDS:
        raise ValueError(f"{origin}: there is no merge_method {kind} here; there are {', '.join(SHARED_KINDS)}.")
    if unknown := raw.keys() - KEYS:
        raise ValueError(
            f"{origin}: {', '.join(sorted(unknown))} cannot be taken over; leave it out, or write a recipe."
        )
    if raw.get("tokenizer_source", "base") != "base":
        raise ValueError(
            f"{origin}: tokenizer_source is {raw['tokenizer_source']}; the result always has the base's tokenizer. "
            "Write base, and --vocabulary pad where models have other numbers of tokens."
        )
    listed = _listed_models(raw, origin)
    models, base = _split_base(kind, listed, raw.get("base_model"), origin=origin)
    shared = DEFAULTS.get(kind, {}) | (raw.get("parameters") or {})
    method = {"kind": kind} | _method_settings(kind, shared, models, origin=origin)
    if base and kind in ("nuslerp", "multislerp"):
        method["origin"] = "base"
    entries = [{"model": entry["model"], **_weight_and_density(kind, entry, shared)} for entry in models]
    dtype = raw.get("out_dtype") or raw.get("dtype")
    keys = {"base_model": base, "models": entries, "method": method, "dtype": dtype}
    return {key: value for key, value in keys.items() if value is not None}


def _listed_models(raw: dict[str, Any], origin: str) -> list[dict[str, Any]]:
    """The entries of models with their parameters, also from a single slice that is the whole model."""
    if "slices" not in raw:
        return raw.get("models") or []
    if len(raw["slices"]) != 1:
        raise ValueError(
            f"{origin}: {len(raw['slices'])} slices build another architecture; only whole models are merged."
        )
    (slice_,) = raw["slices"]
    sources = slice_["sources"]
    for source in sources:
        config = Path(source["model"]) / "config.json"
        layers = read_object(config).get("num_hidden_layers") if config.is_file() else None
        if source["layer_range"][0] != 0 or (layers is not None and source["layer_range"][1] != layers):
            raise ValueError(
                f"{origin}: layer_range {source['layer_range']} of {source['model']} is not the whole model; only whole "
                "models are merged."
            )
    return sources


def _split_base(
    kind: str, listed: list[dict[str, Any]], base: str | None, *, origin: str
) -> tuple[list[dict[str, Any]], str | None]:
    """The models that are merged, and the base, which if it is listed as a model takes part in some methods only."""
    if kind == "slerp":  # from the base to the other model
        first = [entry for entry in listed if entry["model"] == base] or [{"model": base}]
        others = [entry for entry in listed if entry["model"] != base]
        if base is None or len(others) != 1:
            raise ValueError(f"{origin}: slerp takes a base_model and one other model.")
        return [*first, *others], None
    if kind in ("linear", "karcher"):
        return listed, base
    return [entry for entry in listed if entry["model"] != base], base


def _method_settings(kind: str, shared: dict[str, Any], models: list[dict[str, Any]], *, origin: str) -> dict[str, Any]:
    """The settings of the method: shared parameters, and those of models where all have the same value."""
    given = {name: value for name, value in shared.items() if name not in ("weight", "density")}
    for name in ("gamma", "epsilon"):
        values = [entry["parameters"][name] for entry in models if name in (entry.get("parameters") or {})]
        if values and (len(values) < len(models) or any(value != values[0] for value in values)):
            raise ValueError(f"{origin}: {name} differs from model to model; here it is one for all.")
        given |= {name: values[0]} if values else {}
    settings = {}
    for name, value in given.items():
        if name in WITHOUT_EFFECT:
            _check_effect(kind, name, value, origin=origin)
        else:
            settings[name] = _schedule(value)
    return settings


def _check_effect(kind: str, name: str, value: Any, *, origin: str) -> None:
    # what random methods keep is always rescaled so that its expectation stays; nothing else ever is
    allowed = (kind.startswith(("dare", "della")),) if name == "rescale" else WITHOUT_EFFECT[name]
    if value not in allowed:
        raise ValueError(f"{origin}: {name} {value} cannot be taken over for {kind}; only {allowed[0]} can.")


def _weight_and_density(kind: str, entry: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """The keys `weight` and `density` of one model, its own or the shared ones."""
    own = {name: v for name, v in shared.items() if name in ("weight", "density")} | (entry.get("parameters") or {})
    if kind in TASK_VECTOR_KINDS and kind != "task_arithmetic":
        own = {"density": 1.0} | own
    return {name: _schedule(own[name]) for name in ("weight", "density") if name in own}


def _schedule(value: Any) -> Any:
    """Convert a number, a gradient along the layers, or filters, of which the first that occurs in a tensor's name counts."""
    if not isinstance(value, list):
        return value
    if all(isinstance(v, (int, float)) for v in value):
        return {"layers": value}
    patterns = {}
    for condition in value:
        substring = condition.get("filter")
        patterns["*" if substring in (None, "*") else f"*{substring}*"] = _schedule(condition["value"])
    return {"tensors": patterns}
