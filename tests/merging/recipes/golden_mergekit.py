"""Writes golden_mergekit.json: what mergekit makes of small tensors. Run it with a python that has mergekit.

    uv venv /tmp/mergekit && uv pip install --python /tmp/mergekit/bin/python mergekit
    /tmp/mergekit/bin/python tests/merging/recipes/golden_mergekit.py

The file that lies here was written by mergekit 0.1.5 with torch 2.13. Tensors are float32 and drawn in `tensors`.
"""

import json
from pathlib import Path

import torch

CASES = {
    "linear": {"weight": [0.5, 1.5, 1.0]},
    "linear, sum": {"weight": [0.5, 1.5, 1.0], "normalize": False},
    "slerp": {"t": 0.3},
    "task_arithmetic": {"weight": [0.3, 0.5, -0.2]},
    "task_arithmetic, normalised": {"weight": [0.3, 0.5, 0.2], "normalize": True, "lambda": 0.7},
    "ties": {"weight": [0.3, 0.3, 0.3], "density": [0.6, 0.6, 0.6]},
    "ties, weights": {"weight": [0.2, 0.5, 0.3], "density": [0.2, 0.5, 0.9], "lambda": 1.5},
    "ties, sum": {"weight": [0.2, 0.5, 0.3], "density": [0.5, 0.5, 0.5], "normalize": False},
    "breadcrumbs": {"weight": [0.2, 0.5, 0.3], "density": [0.7, 0.7, 0.7], "gamma": [0.1, 0.1, 0.1]},
    "breadcrumbs_ties": {"weight": [0.2, 0.5, 0.3], "density": [0.7, 0.7, 0.7], "gamma": [0.1, 0.1, 0.1]},
    "sce": {"select_topk": 0.3},
    "sce, all": {"select_topk": 1.0},
    "model_stock": {},
    "nuslerp": {"weight": [0.3, 0.9]},
    "nuslerp, zero": {"weight": [0.3, 0.9]},
    "multislerp": {"weight": [0.3, 0.9, 0.5]},
    "multislerp, zero": {"weight": [0.3, 0.9, 0.5]},
    "karcher, zero": {},
}
WITHOUT_BASE = ("linear", "karcher")


def tensors(models):
    """A base and models, wide apart, so that SLERP turns."""
    draw = torch.Generator().manual_seed(11)
    base = torch.randn(8, 25, generator=draw)
    return base, [base + 0.8 * torch.randn(8, 25, generator=draw) for _ in range(models)]


def parts(case):
    """The method's name, whether the base takes part, and how many models stand beside it."""
    kind = case.split(",")[0]
    based = kind not in WITHOUT_BASE and "zero" not in case
    return kind, based, {"slerp": 1, "nuslerp": 2}.get(kind, 3)


def main():
    from mergekit.merge_methods.api import merge_state_dicts

    found = {}
    for case, settings in CASES.items():
        kind, based, count = parts(case)
        base, models = tensors(count)
        states = {f"m{i}": {"w": model} for i, model in enumerate(models)} | ({"base": {"w": base}} if based else {})
        names = [f"m{i}" for i in range(count)]
        spread = {k: dict(zip(names, v, strict=True)) if isinstance(v, list) else v for k, v in settings.items()}
        merged = merge_state_dicts(states, kind, parameters=spread, base="base" if based else None)
        found[case] = [round(x, 7) for x in merged["w"].reshape(-1).tolist()]
    Path(__file__).with_suffix(".json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
