"""Methods that add up models or their changes: the linear average, SCE, and the entry-wise mean they share with TIES."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch.nn.functional import hardshrink

from fusion.merge.method import Method, Weighted, plain_numbers, weighted_sum
from fusion.merge.stack import Flat, Rule, Stack, Tile, gathered, remembered
from fusion.merge.threshold import thresholds


class Linear(Weighted):
    """Weighted average Σ w_s θ_s of the models; the base is not among them. By default each weighs 1/S.

    Source: Wortsman et al. 2022 (model soups), arXiv:2203.05482, section 2.
    """

    kind: Literal["linear"] = "linear"
    normalise: bool = Field(default=True, description="Divide by the sum of the weights.")
    needs_base: ClassVar[bool] = False

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
        return lambda tile: weighted_sum(shares, tile.models).div_(total)


class SCE(Method):
    """Select entries by variance over the models, calculate each model's weight, erase minority signs.

    Select keeps the entries whose variance of δ over the models is among the `select_topk` largest, counted among the
    variances that are not zero (rounded down, at least one, and all that tie with the smallest kept; compared in
    float32); the others stay at the base. With 1 nothing is selected away, changes common to all included. Calculate:
    ω_s is proportional to the mean square of the selected δ_s. Erase: the sign of an entry is that of Σ δ_s, an exact
    tie leaves it at the base; the result is Σ ω_s δ_s / Σ ω_s over the changes of that sign.

    Source: Wan et al. 2024 (FuseChat), arXiv:2408.07990, section 3.3.
    """

    kind: Literal["sce"] = "sce"
    select_topk: float = Field(
        default=0.1, gt=0, le=1, description="Fraction of the entries that vary which is merged."
    )
    selection: Literal["changes", "weights"] = Field(
        default="changes",
        description="What the selection applies to: the changes themselves, as in mergekit, or only the weights ω, so "
        "that entries that were not selected are merged too, as in FuseAI's own code.",
    )

    def check(self, models: int) -> None:
        """Raises ValueError for one model with a selection: without variance the result would be the base."""
        super().check(models)
        if models == 1 and self.select_topk < 1:
            raise ValueError(
                f"sce selects entries by their variance over models and one model has none: with select_topk "
                f"{self.select_topk} the result would be the base. Give more models, set select_topk to 1, or use ties."
            )

    def rule(self, stack: Stack) -> Rule:
        """θ_0 + Σ ω_s δ_s / Σ ω_s over the selected changes that agree."""
        selected = self._selected(stack)
        squares = stack.total(lambda tile: torch.stack([change.dot(change) for change in selected(tile)]))
        omega = (squares / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)).tolist()  # no change: 0, not NaN
        merged = selected if self.selection == "changes" else lambda tile: tile.changes
        return lambda tile: agreeing(merged(tile), omega, votes=[1.0] * len(omega)).add_(tile.base)

    def _selected(self, stack: Stack) -> Callable[[Tile], list[Flat]]:
        if self.select_topk == 1:
            return lambda tile: tile.changes

        variance = remembered(lambda tile: [_variance(tile.changes).float()], stack, 1)
        (least,) = thresholds(stack.total_of_many, gathered(variance), [self.select_topk], nonzero=True)
        below = float(np.nextafter(np.float32(least), np.float32(0)))

        def selected(tile: Tile) -> list[Flat]:
            (spread,) = variance(tile)
            mask = hardshrink(spread, below).sign_().double()
            return [change.mul_(mask) for change in tile.changes]  # a tile has one purpose

        return selected


def agreeing(
    changes: Sequence[Flat], weights: Sequence[float], votes: Sequence[float], *, normalise: bool = True
) -> Flat:
    """Σ w_s δ_s over those changes that have the sign of Σ votes · changes, by default over Σ w_s of the same.

    0 where none has, and where the votes cancel exactly. No weight is negative. Booleans are slow in torch: a change
    that agrees is one whose product with the elected sign is positive.
    """
    elected = weighted_sum(votes, changes).sign_()
    above, below, agree = torch.zeros_like(elected), torch.zeros_like(elected), torch.empty_like(elected)
    for change, weight in zip(changes, weights, strict=True):
        torch.mul(change, elected, out=agree).relu_()  # |δ| where it agrees
        above.add_(agree, alpha=weight)
        if normalise:
            below.add_(agree.sign_(), alpha=weight)
    merged = above.mul_(elected)
    return merged.div_(below.clamp_(min=torch.finfo(torch.float64).tiny)) if normalise else merged


def _variance(changes: Sequence[Flat]) -> Flat:
    """Population variance over the models; exactly 0 where all are equal."""
    first, *others = changes
    equal = 1 / len(changes)
    apart = [other - first for other in others]
    mean = weighted_sum([equal] * len(apart), apart)
    variance = mean.square().mul_(equal)  # of the first, which lies 0 from itself
    for part in apart:
        variance.addcmul_(part.sub_(mean), part, value=equal)
    return variance
