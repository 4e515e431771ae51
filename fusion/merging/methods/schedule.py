"""A setting that differs from tensor to tensor: along the layers (mergekit's gradients), by name (its filters), by slice."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from fusion.core.settings import Settings


def _refuse_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {str(value).lower()}")
    return value


FiniteFloat = Annotated[float, BeforeValidator(_refuse_truth), Field(allow_inf_nan=False)]
BEFORE_LAYERS = ("embed", "wte", "wpe", "word_embeddings")
"""Parts of names of tensors that come before the layers; every other name without a layer number comes behind them."""
TOWER = re.compile(r"(?:^|\.)(?:vision|visual|audio|speech)\w*\.")
"""A part of a name that says that the tensor sees or hears: it comes before the layers, and its own layers are not those."""
FURTHER = re.compile(r"(?:^|\.)mtp\w*\.")
"""The same of layers that predict further tokens, which come behind them."""
LAYER_NUMBER = re.compile(r"\.(\d+)\.")
"""The number of a layer in the name of a tensor, which is the first number there."""


def schedule_form(setting: Any) -> str:
    """The tag of the form a setting is written in, so that pydantic explains a mistake in that form alone."""
    if isinstance(setting, list):
        return "(list)"
    for name, form in (("layers", LayerSchedule), ("slices", SliceSchedule)):
        if isinstance(setting, form) or (isinstance(setting, dict) and name in setting):
            return f"({name})"
    return "(tensors)" if isinstance(setting, (dict, TensorSchedule)) else "(number)"


AsNumber = Annotated[FiniteFloat, Tag("(number)")]


class LayerSchedule(Settings):
    """Anchors spread evenly from the first layer to the last, with straight lines between them."""

    layers: list[FiniteFloat] = Field(min_length=1)
    """The anchors; a model or slice of one layer takes the last."""
    outside: Literal["nearest", "first"] = "nearest"
    """What tensors outside the layers take: the anchor nearest to them (embeddings the first, the last norm and the head the
    last), or all of them the first, as in mergekit."""


AsLayers = Annotated[LayerSchedule, Tag("(layers)")]
NumberOrLayers = Annotated[AsNumber | AsLayers, Discriminator(schedule_form)]


class TensorSchedule(Settings):
    """A value for each pattern of tensor names; the first pattern that matches counts."""

    tensors: dict[str, NumberOrLayers] = Field(min_length=1)
    """Patterns such as `*.mlp.*`; end with `*` for all others."""


AsTensors = Annotated[TensorSchedule, Tag("(tensors)")]


class LayerSlice(Settings):
    """A value for some layers; layers of a gradient are counted within them."""

    layer_range: tuple[int, int]
    """The first layer, and the one behind the last."""
    value: Annotated[AsNumber | AsLayers | AsTensors, Discriminator(schedule_form)]
    """What holds there."""

    @model_validator(mode="after")
    def _has_layers(self) -> LayerSlice:
        if self.layer_range[0] >= self.layer_range[1]:
            raise ValueError(f"layer_range {list(self.layer_range)} holds no layer")
        return self


class SliceSchedule(Settings):
    """A value for each slice of the layers; what comes before the layers goes with the first slice, the rest with the last."""

    slices: list[LayerSlice] = Field(min_length=1)
    """From layer 0 on, each beginning where the one before ends."""

    @model_validator(mode="after")
    def _follow_each_other(self) -> SliceSchedule:
        ends = [0, *(each.layer_range[1] for each in self.slices)]
        for end, each in zip(ends, self.slices, strict=False):
            if each.layer_range[0] != end:
                raise ValueError(f"layer_range {list(each.layer_range)} should begin at layer {end}")
        return self


AsSlices = Annotated[SliceSchedule, Tag("(slices)")]
Schedule = Annotated[AsNumber | AsLayers | AsTensors | AsSlices, Discriminator(schedule_form)]


def schedule_value(
    schedule: float | LayerSchedule | TensorSchedule | SliceSchedule, name: str, num_layers: int, first_layer: int = 0
) -> float:
    """Evaluate a schedule for the tensor `name` among `num_layers` layers, the first of which has the number `first_layer`.

    Raises ValueError where no pattern matches the name.
    """
    if isinstance(schedule, SliceSchedule):
        part = _slice_of(schedule, name)
        first, end = part.layer_range
        return schedule_value(part.value, name, end - first, first)
    if isinstance(schedule, TensorSchedule):
        matching = next((v for pattern, v in schedule.tensors.items() if fnmatchcase(name, pattern)), None)
        if matching is None:
            raise ValueError(
                f"no pattern of {', '.join(schedule.tensors)} fits the tensor {name}; end with one for '*'."
            )
        return schedule_value(matching, name, num_layers, first_layer)
    if isinstance(schedule, LayerSchedule):
        depth = relative_depth(name, num_layers, first_layer)
        if schedule.outside == "first" and layer_number(name) is None:
            depth = 0.0
        return _interpolated(schedule.layers, depth)
    return schedule


def layer_number(name: str) -> int | None:
    """The layer of the language model that a tensor belongs to; None where it belongs to none."""
    layer = None if TOWER.search(name) or FURTHER.search(name) else LAYER_NUMBER.search(name)
    return None if layer is None else int(layer[1])


def relative_depth(name: str, num_layers: int, first_layer: int = 0) -> float:
    """Depth of the tensor in the model: 0 in the first layer and before it, 1 in the last and behind it."""
    layer = layer_number(name)
    if layer is None:
        return 0.0 if _is_before_layers(name) else 1.0
    return min((layer - first_layer) / (num_layers - 1), 1.0) if num_layers > 1 else 1.0


def _interpolated(anchors: list[float], depth: float) -> float:
    at = depth * (len(anchors) - 1)
    low = min(int(at), max(len(anchors) - 2, 0))
    high = min(low + 1, len(anchors) - 1)
    return (1 - (at - low)) * anchors[low] + (at - low) * anchors[high]  # in this order it rounds as mergekit's


def _slice_of(schedule: SliceSchedule, name: str) -> LayerSlice:
    """The slice that the tensor is in; the first for what comes before the layers, the last for what comes behind."""
    layer = layer_number(name)
    if layer is None:
        return schedule.slices[0 if _is_before_layers(name) else -1]
    return next((each for each in schedule.slices if layer < each.layer_range[1]), schedule.slices[-1])


def _is_before_layers(name: str) -> bool:
    return not FURTHER.search(name) and (TOWER.search(name) is not None or any(part in name for part in BEFORE_LAYERS))
