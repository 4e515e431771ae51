"""The weighted average of the models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from fusion.merging.methods.base import Weighted, plain_numbers
from fusion.merging.methods.tiles import Flat, Rule, Stack, Tile


class Linear(Weighted):
    """Weighted average Σ w_s θ_s of the models; the base is not among them. By default each weighs 1/S.

    Source: Wortsman et al. 2022 (model soups), arXiv:2203.05482, section 2.
    """

    kind: Literal["linear"] = "linear"
    normalise: bool = Field(default=True, description="Divide by the sum of the weights.")
    needs_base: ClassVar[bool] = False
    exact: ClassVar[bool] = False

    @model_validator(mode="after")
    def _weights_do_not_cancel(self) -> Linear:
        numbers = plain_numbers(self.weights)
        settled = len(numbers) == len(self.weights or [])
        if numbers and settled and self.normalise and abs(math.fsum(numbers)) <= 1e-9 * sum(map(abs, numbers)):
            raise ValueError(f"the weights {numbers} sum to 0 and cannot be normalised; set normalise: false")
        return self

    def rule(self, stack: Stack) -> Rule:
        """Σ w_s θ_s / Σ w_s."""
        shares = self.shares(len(stack.models))
        total = math.fsum(shares) if self.normalise else 1.0
        weights = [share / total for share in shares]
        return lambda tile: _average(weights, tile)


def _average(weights: Sequence[float], tile: Tile) -> Flat:
    """Each part is converted as it is added, so that it is touched once."""
    first, *rest = tile.stored()
    total = first.to(tile.stack.dtype, copy=True).mul_(weights[0])
    for weight, part in zip(weights[1:], rest, strict=True):
        total.add_(part, alpha=weight)
    return total
