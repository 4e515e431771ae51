"""A setting that differs from tensor to tensor: along the layers (mergekit's gradients), or by name (its filters)."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from fusion.core.settings import Settings

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
BEFORE_LAYERS = ("embed", "wte", "wpe", "word_embeddings")
"""Parts of names of tensors that come before the layers; every other name without a layer number comes behind them."""


class LayerSchedule(Settings):
    """Anchors spread evenly from the first layer to the last, with straight lines between them."""

    layers: list[FiniteFloat] = Field(min_length=1)
    """Embeddings count as the first layer, the last norm and the head as the last one."""


class TensorSchedule(Settings):
    """A value for each pattern of tensor names; the first pattern that matches counts."""

    tensors: dict[str, FiniteFloat | LayerSchedule] = Field(min_length=1)
    """Patterns such as `*.mlp.*`; end with `*` for all others."""


def schedule_form(setting: Any) -> str:
    """The tag of the form a setting is written in, so that pydantic explains a mistake in that form alone."""
    if isinstance(setting, list):
        return "(list)"
    if isinstance(setting, LayerSchedule) or (isinstance(setting, dict) and "layers" in setting):
        return "(layers)"
    return "(tensors)" if isinstance(setting, (dict, TensorSchedule)) else "(number)"


AsLayers = Annotated[LayerSchedule, Tag("(layers)")]
AsTensors = Annotated[TensorSchedule, Tag("(tensors)")]
Schedule = Annotated[Annotated[FiniteFloat, Tag("(number)")] | AsLayers | AsTensors, Discriminator(schedule_form)]


def schedule_value(schedule: float | LayerSchedule | TensorSchedule, name: str, num_layers: int) -> float:
    """Evaluate a schedule for the tensor `name` of a model with `num_layers` layers.

    Raises ValueError where no pattern matches the name.
    """
    if isinstance(schedule, TensorSchedule):
        matching = next((v for pattern, v in schedule.tensors.items() if fnmatchcase(name, pattern)), None)
        if matching is None:
            raise ValueError(
                f"no pattern of {', '.join(schedule.tensors)} fits the tensor {name}; end with one for '*'."
            )
        return schedule_value(matching, name, num_layers)
    if isinstance(schedule, LayerSchedule):
        at = relative_depth(name, num_layers) * (len(schedule.layers) - 1)
        low = min(int(at), len(schedule.layers) - 2) if len(schedule.layers) > 1 else 0
        high = min(low + 1, len(schedule.layers) - 1)
        return schedule.layers[low] + (at - low) * (schedule.layers[high] - schedule.layers[low])
    return schedule


def relative_depth(name: str, num_layers: int) -> float:
    """Depth of the tensor in the model: 0 in the first layer and before it, 1 in the last and behind it."""
    layer = re.search(r"\.(\d+)\.", name)
    if layer is None:
        return 0.0 if any(part in name for part in BEFORE_LAYERS) else 1.0
    return min(int(layer[1]) / (num_layers - 1), 1.0) if num_layers > 1 else 0.0
