"""A number that differs from tensor to tensor: along the layers, or by the name of the tensor."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from fusion.core.settings import Settings

Finite = Annotated[float, Field(allow_inf_nan=False)]
FIRST = ("embed", "wte", "wpe", "word_embeddings")
"""Parts of names that stand before the layers; every other name without a number stands behind them."""


class Layers(Settings):
    """Anchors spread evenly from the first layer to the last, with straight lines between them."""

    layers: list[Finite] = Field(min_length=1)
    """Embeddings count as the first layer, the last norm and the head as the last one."""


class Tensors(Settings):
    """A value for each pattern of names; the first that fits counts."""

    tensors: dict[str, Finite | Layers] = Field(min_length=1)
    """Patterns such as `*.mlp.*`; end with `*` for all others."""


def form(given: Any) -> str:
    """Which of its forms a setting has, so that a mistake is told of that form alone."""
    if isinstance(given, list):
        return "(list)"
    if isinstance(given, Layers) or (isinstance(given, dict) and "layers" in given):
        return "(layers)"
    return "(tensors)" if isinstance(given, (dict, Tensors)) else "(number)"


AsLayers = Annotated[Layers, Tag("(layers)")]
AsTensors = Annotated[Tensors, Tag("(tensors)")]
Schedule = Annotated[Annotated[Finite, Tag("(number)")] | AsLayers | AsTensors, Discriminator(form)]


def value(schedule: float | Layers | Tensors, name: str, layers: int) -> float:
    """The number for the tensor `name` of a model with so many layers. Raises ValueError where no pattern fits."""
    if isinstance(schedule, Tensors):
        chosen = next((v for pattern, v in schedule.tensors.items() if fnmatchcase(name, pattern)), None)
        if chosen is None:
            raise ValueError(
                f"no pattern of {', '.join(schedule.tensors)} fits the tensor {name}; end with one for '*'."
            )
        return value(chosen, name, layers)
    if isinstance(schedule, Layers):
        at = depth(name, layers) * (len(schedule.layers) - 1)
        low = min(int(at), len(schedule.layers) - 2) if len(schedule.layers) > 1 else 0
        high = min(low + 1, len(schedule.layers) - 1)
        return schedule.layers[low] + (at - low) * (schedule.layers[high] - schedule.layers[low])
    return schedule


def depth(name: str, layers: int) -> float:
    """Where the tensor stands: 0 in the first layer and before it, 1 in the last and behind it."""
    number = re.search(r"\.(\d+)\.", name)
    if number is None:
        return 0.0 if any(part in name for part in FIRST) else 1.0
    return min(int(number[1]) / (layers - 1), 1.0) if layers > 1 else 0.0
