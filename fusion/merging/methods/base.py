"""What every merge method is: settings with a name, and a rule for one tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, ValidationError
from torch import Tensor

from fusion.core.settings import Settings
from fusion.merging.methods.schedule import Layers, Schedule, Tensors, value
from fusion.merging.methods.tiles import Flat, Rule, Stack, Tile

AnyShape = Float[Tensor, "..."]


class Method(Settings, ABC):
    """A rule for one tensor: base and models in, merged tensor out.

    A new method is a class with a `kind` and a `rule`, named in `methods.ALL`.
    """

    needs_base: ClassVar[bool] = True
    """Whether the base's weights take part; if not, the base gives configuration and tokenizer only."""
    exact: ClassVar[bool] = True
    """Whether it needs float64 even for models of 16 bits; if not, theirs is float32, which costs half."""
    fewest: ClassVar[int] = 1
    most: ClassVar[int | None] = None
    """How many models besides the base it can merge."""

    def __call__(
        self, base: AnyShape, models: Sequence[AnyShape], name: str = "the tensor", layers: int = 1
    ) -> AnyShape:
        """The merged tensor, float32, in the shape of `base`. Raises ValueError on other shapes or a wrong count.

        `name` and the number of `layers` matter to settings that differ from tensor to tensor, and to random choices.
        """
        self.check(len(models))
        for model in models:
            if model.shape != base.shape:
                raise ValueError(f"A model's tensor has shape {tuple(model.shape)}, the base's {tuple(base.shape)}.")
        stack = Stack.of(base, models, name, exact=self.exact)
        rule = self.at(name, layers).rule(stack)
        merged = torch.empty(base.numel(), dtype=torch.float32, device=base.device)

        def write(tile: Tile, values: Flat) -> None:
            merged[tile.start : tile.stop] = values

        stack.apply(rule, torch.float32, write)
        return merged.reshape(base.shape)

    def check(self, models: int) -> None:
        """Raises ValueError, with the reason, where this method cannot merge that many models."""
        if models < self.fewest:
            least = "one model to merge" if self.fewest == 1 else f"{self.fewest} models"
            raise ValueError(f"{self.name} needs at least {least}, got {models or 'none'}.")
        if self.most is not None and models > self.most:
            raise ValueError(
                f"{self.name} merges {self.most} models, got {models}; multislerp and karcher take any number."
            )

    @abstractmethod
    def rule(self, stack: Stack) -> Rule:
        """What to do with each tile, once all that depends on the whole tensor is known."""

    @property
    def name(self) -> str:
        """The `kind` as it is written in a configuration."""
        return type(self).model_fields["kind"].default

    def at(self, name: str, layers: int) -> Method:
        """This method with the numbers that hold for one tensor. Raises ValueError where they are out of range."""
        varying = {field: v for field in type(self).model_fields if _varies(v := getattr(self, field))}
        if not varying:
            return self
        numbers = {field: _numbers(v, name, layers) for field, v in varying.items()}
        try:
            return type(self).model_validate(self.model_dump() | numbers)
        except ValidationError as error:
            raise ValueError(f"{self.name} at {name}: {error.errors()[0]['msg']}, got {numbers}") from None


class Weighted(Method):
    """A method with one weight a model."""

    weights: list[Schedule] | None = Field(
        default=None, description="One weight a model, in their order; by default all equal."
    )

    weighs: ClassVar[float | None] = None
    """What each model weighs by default; None for 1/S."""

    def check(self, models: int) -> None:
        """Raises ValueError where there are not as many weights as models."""
        super().check(models)
        if self.weights is not None and len(self.weights) != models:
            raise ValueError(
                f"{self.name} has {len(self.weights)} weights for {models} models; give one each, or leave them out."
            )

    def shares(self, models: int) -> list[float]:
        """The weights as numbers."""
        if self.weights is None:
            return [1 / models if self.weighs is None else self.weighs] * models
        return each(self.weights)


def each(values: Sequence[Any]) -> list[float]:
    """Numbers, of a method that was made for one tensor."""
    assert all(isinstance(v, (int, float)) for v in values), f"{values}: call at() first"
    return list(values)


def weighted_sum(weights: Sequence[float], parts: Iterable[Flat]) -> Flat:
    """Σ w_s x_s, in the dtype of the parts."""
    rest = iter(parts)
    total = next(rest) * weights[0]
    for weight, part in zip(weights[1:], rest, strict=True):
        total.add_(part, alpha=weight)
    return total


def plain_numbers(value: Any) -> list[float]:
    """The numbers among settings that may still differ from tensor to tensor."""
    return [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, (int, float))]


def _varies(setting: Any) -> bool:
    return any(isinstance(v, (Layers, Tensors)) for v in (setting if isinstance(setting, list) else [setting]))


def _numbers(setting: Any, name: str, layers: int) -> Any:
    if isinstance(setting, list):
        return [value(v, name, layers) for v in setting]
    return value(setting, name, layers) if isinstance(setting, (Layers, Tensors)) else setting
