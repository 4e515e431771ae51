"""mergekit's YAML, read as a recipe of ours, for the methods that both have; what would come out otherwise is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPARSE = (
    "task_arithmetic", "ties", "dare_linear", "dare_ties", "della_linear", "della", "breadcrumbs", "breadcrumbs_ties",
)  # fmt: skip
SHARED = ("linear", "slerp", "nuslerp", "multislerp", "karcher", "model_stock", *SPARSE, "sce")
DEFAULTS: dict[str, dict[str, Any]] = {
    **{name: {"normalize": name == "ties"} for name in SPARSE},
    "sce": {"select_topk": 1.0},
    "linear": {"normalize": True},
    "nuslerp": {},
}
"""Where mergekit's default is not ours, or is a choice."""
OURS = {"normalize": "normalise", "lambda": "scale", "max_iter": "steps"}
WITHOUT_EFFECT = {"int8_mask": (True, False), "normalize_weights": (True,), "nuslerp_flatten": (True,), "rescale": ()}
"""Parameters that change nothing in the result, with the values of which that holds."""
KEYS = {
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source", "name",
}  # fmt: skip


def wrote(raw: dict[str, Any]) -> bool:
    """Whether these are mergekit's keys."""
    return "merge_method" in raw


def translated(raw: dict[str, Any], origin: str) -> dict[str, Any]:
    """The keys of a recipe. Raises ValueError for what has no counterpart."""
    kind = raw["merge_method"]
    if kind not in SHARED:
        raise ValueError(f"{origin}: there is no merge_method {kind} here; there are {', '.join(SHARED)}.")
    if unknown := raw.keys() - KEYS:
        raise ValueError(
            f"{origin}: {', '.join(sorted(unknown))} cannot be taken over; leave it out, or write a recipe."
        )
    if raw.get("tokenizer_source", "base") != "base":
        raise ValueError(
            f"{origin}: tokenizer_source is {raw['tokenizer_source']}; the result always has the base's tokenizer. "
            "Write base, and --vocabulary pad where models have other numbers of tokens."
        )
    parts = _parts(raw, origin)
    models, base = _placed(kind, parts, raw.get("base_model"), origin)
    shared = DEFAULTS.get(kind, {}) | (raw.get("parameters") or {})
    method = {"kind": kind} | _method(kind, shared, models, origin)
    if base and kind in ("nuslerp", "multislerp"):
        method["origin"] = "base"
    entries = [{"path": part["model"], **_weight(kind, part, shared)} for part in models]
    dtype = raw.get("out_dtype") or raw.get("dtype")
    found = {"base": base, "models": entries, "method": method, "dtype": dtype}
    return {name: value for name, value in found.items() if value is not None}


def _parts(raw: dict[str, Any], origin: str) -> list[dict[str, Any]]:
    """Models with their parameters; from a single slice that is the whole model too."""
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
        layers = json.loads(config.read_bytes()).get("num_hidden_layers") if config.is_file() else None
        if source["layer_range"][0] != 0 or (layers is not None and source["layer_range"][1] != layers):
            raise ValueError(
                f"{origin}: layer_range {source['layer_range']} of {source['model']} is not the whole model; only whole "
                "models are merged."
            )
    return sources


def _placed(
    kind: str, parts: list[dict[str, Any]], base: str | None, origin: str
) -> tuple[list[dict[str, Any]], str | None]:
    """The models that are merged, and the base: a base among the models takes part in some methods and not in others."""
    if kind == "slerp":  # from the base to the other model
        first = [part for part in parts if part["model"] == base] or [{"model": base}]
        rest = [part for part in parts if part["model"] != base]
        if base is None or len(rest) != 1:
            raise ValueError(f"{origin}: slerp takes a base_model and one other model.")
        return [*first, *rest], None
    if kind in ("linear", "karcher"):
        return parts, base
    return [part for part in parts if part["model"] != base], base


def _method(kind: str, shared: dict[str, Any], models: list[dict[str, Any]], origin: str) -> dict[str, Any]:
    """Settings of the method: shared parameters, and those of models where all say the same."""
    found = {name: value for name, value in shared.items() if name not in ("weight", "density")}
    for name in ("gamma", "epsilon"):
        values = [part["parameters"][name] for part in models if name in (part.get("parameters") or {})]
        if values and (len(values) < len(models) or any(value != values[0] for value in values)):
            raise ValueError(f"{origin}: {name} differs from model to model; here it is one for all.")
        found |= {name: values[0]} if values else {}
    settings = {}
    for name, value in found.items():
        if name in WITHOUT_EFFECT:
            _check_effect(kind, name, value, origin)
        else:
            settings[OURS.get(name, name)] = _schedule(value)
    return settings


def _check_effect(kind: str, name: str, value: Any, origin: str) -> None:
    # what random methods leave is always enlarged so that its expectation stays; nothing else ever is
    allowed = (kind.startswith(("dare", "della")),) if name == "rescale" else WITHOUT_EFFECT[name]
    if value not in allowed:
        raise ValueError(f"{origin}: {name} {value} cannot be taken over for {kind}; only {allowed[0]} can.")


def _weight(kind: str, part: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Weight and density of one model."""
    own = {name: v for name, v in shared.items() if name in ("weight", "density")} | (part.get("parameters") or {})
    if kind in SPARSE and kind != "task_arithmetic":
        own = {"density": 1.0} | own
    return {name: _schedule(own[name]) for name in ("weight", "density") if name in own}


def _schedule(value: Any) -> Any:
    """A number, numbers along the layers, or the first filter that occurs in the tensor's name."""
    if not isinstance(value, list):
        return value
    if all(isinstance(v, (int, float)) for v in value):
        return {"layers": value}
    patterns = {}
    for condition in value:
        wanted = condition.get("filter")
        patterns["*" if wanted in (None, "*") else f"*{wanted}*"] = _schedule(condition["value"])
    return {"tensors": patterns}
