"""Training, extraction and evaluation in bfloat16 against the same run in float32.

A run is a whole one, as `fusion run` makes it: the pivot has the shape of SmolLM2-135M, its source that of Qwen2.5-Coder-0.5B.
Bounds are relative to numbers of some 60 nats a token, for these models are random and their logits large: bfloat16 keeps 8
bits, so its steps there are 0.25 to 0.5, and errors of several steps average out over the tokens of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fusion import pipeline
from fusion.cache import Cache
from fusion.config import loading
from fusion.training import BASELINE
from fusion_eval.results import Result
from gpu_checks.check import Check, CheckContext
from gpu_checks.shapes import model_folder

MODES: dict[str, dict[str, Any]] = {
    "float32": {},
    "mixed": {"training": {"bf16": True}, "extract": {"dtype": "bfloat16"}},
    "pure": {"dtype": "bfloat16", "extract": {"dtype": "bfloat16"}},
}
"""What differs in the configuration. Mixed precision computes in bfloat16 on float32 weights; pure has no other weights."""
ANY = 1e-9
"""Below every rounding: a difference of exactly 0 means that nothing was computed in bfloat16."""
TRAINED_BOUNDS = {"mixed": 0.01, "pure": 0.03}
"""Relative, of losses and of what trained models say. Pure is further off, and not by rounding of what is computed: a weight
in bfloat16 forgets each step below 1/512 of itself, while float32 weights learn from it."""
UNTRAINED_BOUND = 0.01
GOLD_BOUND = 0.02
AGREEMENT_BOUND = 0.85
"""Random logits are close: one in twenty of the likeliest tokens is another in bfloat16."""
UNTRAINED = ("pivot", "qwen2")
"""The models as they were; the others of the run are trained."""


def mixed_check(context: CheckContext) -> Iterator[Check]:
    """Mixed precision: `training: {bf16: true}`, the rest in bfloat16."""
    yield from _compare(context, "mixed")


def pure_check(context: CheckContext) -> Iterator[Check]:
    """Weights in bfloat16: `dtype: bfloat16`, the rest in bfloat16."""
    yield from _compare(context, "pure")


def _compare(context: CheckContext, mode: str) -> Iterator[Check]:
    folders = _run(context, "float32"), _run(context, mode)
    for training in (BASELINE, "unified"):
        yield _losses(mode, training, folders)
    for model in UNTRAINED:
        yield from _rows(mode, model, folders)
    for model in (*UNTRAINED, BASELINE, "unified"):
        yield _bits(mode, model, folders)


def _run(context: CheckContext, mode: str) -> Path:
    """Make the run of this precision, unless it is made; its folder."""
    return pipeline.run(loading.parse(configuration(context, mode), f"the run {mode} of the check"))


def configuration(context: CheckContext, mode: str) -> dict[str, Any]:
    """Return the configuration of a run in one of `MODES`."""
    train, heldout, batch, steps = (8, 2, 2, 2) if context.tiny else (64, 32, 8, 4)
    skills = ("sums", "sort")
    return loading.laid_over(
        {
            "name": mode,
            "runs": str(context.folder / "runs"),
            "store": str(context.folder / "store"),
            "pivot": {"path": str(model_folder(context, "llama"))},
            "sources": [{"name": "qwen2", "path": str(model_folder(context, "qwen2"))}],
            "data": {
                part: [{"path": f"builtin:{s}", "domain": s, "split": split, "limit": limit} for s in skills]
                for part, split, limit in (("train", "fusion", train), ("heldout", "heldout", heldout))
            },
            "extract": {"value_format": "float32"},
            "objectives": [
                {"kind": "cross_entropy", "weight": 0.5},
                {"kind": "forward_kl", "weight": 0.3},
                {"kind": "infifusion", "weight": 0.1},
                {"kind": "gld", "weight": 0.1},
            ],
            "training": {
                "max_steps": steps,
                "per_device_train_batch_size": batch,
                "learning_rate": 1e-6,
                "save_strategy": "no",
                "report_to": [],
            },
            "evaluation": {"exact_match": ["sums"], "max_new_tokens": 4},
        },
        MODES[mode],
    )


def _losses(mode: str, training: str, folders: Sequence[Path]) -> Check:
    logs = [json.loads((folder / "train" / training / "log.json").read_text()) for folder in folders]
    expected, measured = ([entry["loss"] for entry in log] for log in logs)
    differences = [abs(b / a - 1) for a, b in zip(expected, measured, strict=True)]
    how = f"{len(expected)} steps; float32: {_numbers(expected)}; {mode}: {_numbers(measured)}"
    name = f"{mode}: loss of {training}, largest relative difference of a step"
    return Check(name, max(differences), at_least=ANY, at_most=TRAINED_BOUNDS[mode], how=how)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _rows(mode: str, model: str, folders: Sequence[Path]) -> Iterator[Check]:
    expected, measured = (Cache(folder / "cache" / model) for folder in folders)
    a, b = expected.rows(expected.ids), measured.rows(expected.ids)
    error, size = (a.gold - b.gold).abs(), a.gold.abs().mean().item()
    how = f"{len(a):,} rows; mean {error.mean():.3g}, largest {error.max():.3g} of {size:.3g} nats"
    name = f"{mode}: extraction of {model}, mean relative difference of gold log-probabilities"
    yield Check(name, error.mean().item() / size, at_least=ANY, at_most=GOLD_BOUND, how=how)
    agreement = (a.ids[:, 0] == b.ids[:, 0]).float().mean().item()
    yield Check(f"{mode}: extraction of {model}, same likeliest token", agreement, at_least=AGREEMENT_BOUND)


def _bits(mode: str, model: str, folders: Sequence[Path]) -> Check:
    expected, measured = (Result.load(folder / "eval" / model / "heldout.json").samples for folder in folders)
    a, b = (sum(sample.nll or 0.0 for sample in samples) for samples in (expected, measured))
    how = f"{len(expected)} held-out examples; {a / sum(sample.bytes for sample in expected):.4g} nats a byte"
    name = f"{mode}: evaluation of {model}, relative difference of bits per byte"
    bound = UNTRAINED_BOUND if model in UNTRAINED else TRAINED_BOUNDS[mode]
    return Check(name, abs(b / a - 1), at_most=bound, how=how)
