"""What a mergekit configuration merges: its models, or its slices where together they are every layer of the models once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.core.text_files import read_object
from fusion.merging.adapters.model_reference import split_reference
from fusion.merging.layer_count import layer_count
from fusion.merging.recipes.mergekit_forms import MergekitMerge, OutputSlice, WholeModel

AVERAGES = ("linear", "passthrough")
"""Methods in which a slice may lack some models: these weigh 0 there."""
COUNT_THE_BASE = ("linear", "karcher")
"""Methods for which mergekit adds a `base_model` that is not listed to the models, as one more."""
BASE_PLACE = "parameters of an entry of models for it, since mergekit counts the base as one more"


@dataclass(frozen=True)
class ParameterGroup:
    """The values under one `parameters:`."""

    place: str
    """The path of its keys, such as models[0].parameters."""
    values: Mapping[str, Any]
    of_model: bool = False
    """Whether it belongs to a model rather than to a slice or the whole merge."""


@dataclass(frozen=True)
class MergedSlice:
    """Layers of the result, and the models that are merged there."""

    sources: dict[str, ParameterGroup]
    """The models in their order, each with its own parameters."""
    shared: list[ParameterGroup]
    """The parameters of the slice, and then those of the whole merge."""
    layers: tuple[int, int] = (0, 0)
    """The first layer, and the one behind the last; of no meaning where there is one slice."""

    @property
    def groups(self) -> list[ParameterGroup]:
        """All its parameters."""
        return [*self.sources.values(), *self.shared]


def merged_slices(merge: MergekitMerge) -> list[MergedSlice]:
    """The slices of the result; one where whole models are merged.

    Raises ValueError where models stand twice, or slices are not all layers of their models, each once and in order.
    """
    top = ParameterGroup("parameters", merge.parameters or {})
    if (merge.models is None) == (merge.slices is None):
        raise ValueError("write models or slices, and one of the two only.")
    if merge.models is not None:
        if not merge.models:
            raise ValueError("models is empty; list the models to merge.")
        listed = _by_model(merge.models, "models")
        if merge.base_model and merge.base_model not in listed and merge.merge_method in COUNT_THE_BASE:
            listed[merge.base_model] = ParameterGroup(BASE_PLACE, {}, of_model=True)
        return [MergedSlice(listed, [top])]
    if not merge.slices:
        raise ValueError("slices is empty; list the layers to merge, or models.")
    _check_layers(merge.slices)
    if merge.merge_method not in AVERAGES:
        _check_same_models(merge.slices)
    return [_merged_slice(part, number, top) for number, part in enumerate(merge.slices)]


def slice_base(merge: MergekitMerge) -> str | None:
    """The base of the deltas: that of the slices, else that of the merge. Raises ValueError where slices differ."""
    bases = {part.base_model or merge.base_model for part in merge.slices or []} or {merge.base_model}
    if len(bases) > 1:
        named = ", ".join(str(base) for base in sorted(bases, key=str))
        raise ValueError(f"base_model differs from slice to slice ({named}); here it is one for all.")
    return bases.pop()


def _merged_slice(part: OutputSlice, number: int, top: ParameterGroup) -> MergedSlice:
    place = f"slices[{number}]"
    own = ParameterGroup(f"{place}.parameters", part.parameters or {})
    first, end = part.sources[0].layer_range
    return MergedSlice(_by_model(part.sources, f"{place}.sources"), [own, top], (first, end))


def _by_model(entries: Sequence[WholeModel], place: str) -> dict[str, ParameterGroup]:
    found: dict[str, ParameterGroup] = {}
    for number, entry in enumerate(entries):
        if entry.model in found:
            raise ValueError(f"{place}[{number}].model is {entry.model} once more; list each model once.")
        found[entry.model] = ParameterGroup(f"{place}[{number}].parameters", entry.parameters or {}, of_model=True)
    return found


def _check_layers(slices: Sequence[OutputSlice]) -> None:
    """Raise ValueError unless the slices are every layer of each of their models, once, in order."""
    at = 0
    for number, part in enumerate(slices):
        first, *others = part.sources
        for place, source in enumerate(others, 1):
            if source.layer_range != first.layer_range:
                raise ValueError(
                    f"slices[{number}].sources[{place}].layer_range is {source.layer_range}, that of sources[0] "
                    f"{first.layer_range}; only layers of the same number are merged with each other."
                )
        start, end = first.layer_range
        if start != at or end <= start:
            raise ValueError(
                f"slices[{number}].sources[0].layer_range is {first.layer_range} where layer {at} comes next; "
                "layers that are left out, repeated or moved make another architecture, and only whole models are merged."
            )
        at = end
    for number, part in enumerate(slices):
        for place, source in enumerate(part.sources):
            _check_count(source.model, f"slices[{number}].sources[{place}].layer_range", at)


def _check_count(model: str, place: str, end: int) -> None:
    """Raise ValueError where the model has not as many layers as the slices; a folder that is not there is found later."""
    folder, _ = split_reference(Path(model))
    config = folder / "config.json"
    if not config.is_file():
        return
    layers = layer_count(read_object(config))
    if layers is None:
        raise ValueError(f"{place}: {config} states no number of layers; list whole models under models.")
    if layers != end:
        raise ValueError(
            f"{place}: the slices end at layer {end} and {model} has {layers} layers; only whole models are "
            f"merged, [0, {layers}]."
        )


def _check_same_models(slices: Sequence[OutputSlice]) -> None:
    expected = {source.model for source in slices[0].sources}
    for number, part in enumerate(slices):
        actual = {source.model for source in part.sources}
        if actual != expected:
            raise ValueError(
                f"slices[{number}] has the models {', '.join(sorted(actual))}, slices[0] has "
                f"{', '.join(sorted(expected))}; only linear and passthrough may differ in this."
            )
