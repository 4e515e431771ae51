"""When a model in training is read on validation examples: TrainingArguments, and how often that is in all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fusion.training.engine import BATCH_SIZE

EVAL_BATCH_SIZE = "per_device_eval_batch_size"
EVAL_ARGUMENTS = ("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", EVAL_BATCH_SIZE)
"""TrainingArguments that say whether validation examples are read (the first), when, and how many at once."""
DEFAULTS: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 0.1, "eval_on_start": True}
"""Ours, where there are validation examples: before the first step, and ten times along the training."""


def validation_arguments(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `EVAL_ARGUMENTS` of a training with validation examples, ours where the user's do not say; none for `no`.

    So many examples are read at once as are trained on at once.
    """
    given = {name: training[name] for name in EVAL_ARGUMENTS if training.get(name) is not None}
    if given.get("eval_strategy") == "no":
        return {}
    return {**DEFAULTS, EVAL_BATCH_SIZE: int(training.get(*BATCH_SIZE)), **given}


def validation_points(arguments: Mapping[str, Any], steps: int, epochs: int | float) -> int:
    """How often validation examples are read in a training of so many steps and epochs; 0 without `arguments`."""
    if not arguments:
        return 0
    delay = float(arguments.get("eval_delay", 0))
    if arguments["eval_strategy"] == "epoch":
        reached = [number for number in range(1, math.ceil(epochs) + 1) if min(number, epochs) >= delay]
        return bool(arguments["eval_on_start"]) + len(reached)
    every = float(arguments["eval_steps"])
    every = math.ceil(steps * every) if every < 1 else int(every)
    reached = [step for step in {*range(every, steps + 1, every), steps} if step >= delay]  # the last step always
    return bool(arguments["eval_on_start"]) + len(reached)
