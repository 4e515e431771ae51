"""What every merge method is: settings with a `kind`, and a rule for one tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, ValidationError
from torch import Tensor
from typing_extensions import override

from fusion.core.settings import Settings
from fusion.merging.methods.schedule import LayerSchedule, Schedule, SliceSchedule, TensorSchedule, schedule_value
from fusion.merging.methods.tiles import Flat, Rule, TensorStack, Tile

AnyShape = Float[Tensor, "..."]


class MergeMethod(Settings, ABC):
    """A rule for one tensor: the base's and the models' in, the merged one out.

    A new method is a class with a `kind` and a `rule`, listed in `registry.METHODS`.
    """

    needs_base: ClassVar[bool] = True
    """Whether the base's weights take part; if not, the base gives configuration and tokenizer only."""
    always_float64: ClassVar[bool] = True
    """Whether it computes in float64 even for 16-bit models; if not, those are float32, which costs half."""
    min_models: ClassVar[int] = 1
    """The fewest models besides the base that it can merge."""
    max_models: ClassVar[int | None] = None
    """The most models besides the base that it can merge; None for any number."""

    def __call__(
        self, base: AnyShape, models: Sequence[AnyShape], name: str = "the tensor", *, num_layers: int = 1
    ) -> AnyShape:
        """Merge one tensor in memory: float32, in the shape of `base`.

        `name` and `num_layers` matter to settings that differ from tensor to tensor, and to random choices.
        Raises ValueError on tensors of another shape or a wrong number of models.
        """
        self.check_models(len(models))
        for model in models:
            if model.shape != base.shape:
                raise ValueError(f"A model's tensor has shape {tuple(model.shape)}, the base's {tuple(base.shape)}.")
        stack = TensorStack.from_tensors(base, models, name, always_float64=self.always_float64)
        rule = self.for_tensor(name, num_layers).rule(stack)
        merged = torch.empty(base.numel(), dtype=torch.float32, device=base.device)

        def write(tile: Tile, values: Flat) -> None:
            merged[tile.start : tile.stop] = values

        stack.apply(rule, torch.float32, write)
        return merged.reshape(base.shape)

    def check_models(self, count: int) -> None:
        """Raise ValueError, with the reason, where this method cannot merge `count` models."""
        if count < self.min_models:
            least = "one model to merge" if self.min_models == 1 else f"{self.min_models} models"
            raise ValueError(f"{self.name} needs at least {least}, got {count or 'none'}.")
        if self.max_models is not None and count > self.max_models:
            raise ValueError(
                f"{self.name} merges {self.max_models} models, got {count}; multislerp and karcher take any number."
            )

    @abstractmethod
    def rule(self, stack: TensorStack) -> Rule:
        """The function that merges one tile of the tensor; what depends on the whole tensor is computed here, before."""

    @property
    def name(self) -> str:
        """The `kind` as it is written in a configuration."""
        return type(self).model_fields["kind"].default

    def for_tensor(self, name: str, num_layers: int) -> MergeMethod:
        """This method with every schedule replaced by its number for the tensor `name`.

        Raises ValueError where such a number is out of range.
        """
        schedules = {field: v for field in type(self).model_fields if _has_schedule(v := getattr(self, field))}
        if not schedules:
            return self
        fields = type(self).model_fields
        keys = {field: fields[field].serialization_alias or field for field in schedules}
        numbers = {keys[field]: _evaluated(v, name, num_layers) for field, v in schedules.items()}
        try:
            return type(self).model_validate(self.model_dump() | numbers)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"{self.name} at {name}: {message}, got {numbers}") from None


class WeightedMethod(MergeMethod):
    """A method with one weight per model."""

    weights: list[Schedule] | None = Field(
        default=None, description="One weight per model, in their order; by default all equal."
    )

    default_weight: ClassVar[float | None] = None
    """What each model weighs by default; None for 1/S."""

    @override
    def check_models(self, count: int) -> None:
        super().check_models(count)
        if self.weights is not None and len(self.weights) != count:
            raise ValueError(
                f"{self.name} has {len(self.weights)} weights for {count} models; give one each, or leave them out."
            )

    def model_weights(self, count: int) -> list[float]:
        """The weights of `count` models as numbers, after `for_tensor`; equal ones where none were given."""
        if self.weights is None:
            return [1 / count if self.default_weight is None else self.default_weight] * count
        return as_numbers(self.weights)


def as_numbers(values: Sequence[Any]) -> list[float]:
    """The values of a setting of a method that went through `for_tensor`, so that none is a schedule any more."""
    assert all(isinstance(v, (int, float)) for v in values), f"{values}: call for_tensor() first"
    return list(values)


def weighted_sum(weights: Sequence[float], tensors: Iterable[Flat]) -> Flat:
    """Σ w_s x_s, in the dtype of the tensors; they are consumed one at a time."""
    remaining = iter(tensors)
    total = next(remaining) * weights[0]
    for weight, tensor in zip(weights[1:], remaining, strict=True):
        total.add_(tensor, alpha=weight)
    return total


def constant_values(setting: Any) -> list[float]:
    """The plain numbers in a setting, without the schedules, which are checked per tensor."""
    return [v for v in (setting if isinstance(setting, list) else [setting]) if isinstance(v, (int, float))]


def _has_schedule(setting: Any) -> bool:
    values = setting if isinstance(setting, list) else [setting]
    return any(isinstance(v, (LayerSchedule, TensorSchedule, SliceSchedule)) for v in values)


def _evaluated(setting: Any, name: str, num_layers: int) -> Any:
    if isinstance(setting, list):
        return [schedule_value(v, name, num_layers) for v in setting]
    return schedule_value(setting, name, num_layers) if _has_schedule(setting) else setting
