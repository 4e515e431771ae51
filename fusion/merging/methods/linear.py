"""The weighted average of the models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from fusion.merging.methods.base import WeightedMethod, constant_values
from fusion.merging.methods.tiles import Flat, Rule, TensorStack, Tile


class Linear(WeightedMethod):
    """Weighted average Σ w_s θ_s of the models; the base is not among them. By default each weighs 1/S.

    Source: Wortsman et al. 2022 (model soups), arXiv:2203.05482, section 2.
    """

    kind: Literal["linear"] = "linear"
    normalize: bool = Field(default=True, description="Divide by the sum of the weights.")
    needs_base: ClassVar[bool] = False
    always_float64: ClassVar[bool] = False

    @model_validator(mode="after")
    def _weights_do_not_cancel(self) -> Linear:
        numbers = constant_values(self.weights)
        complete = len(numbers) == len(self.weights or [])
        if numbers and complete and self.normalize and abs(math.fsum(numbers)) <= 1e-9 * sum(map(abs, numbers)):
            raise ValueError(f"the weights {numbers} sum to 0 and cannot be normalized; set normalize: false")
        return self

    @override
    def rule(self, stack: TensorStack) -> Rule:
        given = self.model_weights(len(stack.models))
        total = math.fsum(given) if self.normalize else 1.0
        weights = [weight / total for weight in given]
        return lambda tile: _average(weights, tile)


def _average(weights: Sequence[float], tile: Tile) -> Flat:
    """Σ w_s θ_s of a tile, in the stack's dtype."""
    first, *others = tile.stored_models()
    total = first.to(tile.stack.dtype, copy=True).mul_(weights[0])
    for weight, model in zip(weights[1:], others, strict=True):
        total.add_(model, alpha=weight)  # converts as it adds, so that each entry is touched once
    return total
