"""Select the entries that vary most, calculate each model's weight from them, erase minority signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fusion.merging.methods.base import Method, weighted_sum
from fusion.merging.methods.sign_election import agreeing
from fusion.merging.methods.threshold import thresholds
from fusion.merging.methods.tiles import Flat, Rule, Stack, Tile, finite, remembered


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
    exact: ClassVar[bool] = False
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
        if self.select_topk == 1:
            omega = _omega(stack, lambda tile: tile.changes)
            return lambda tile: tile.base.add_(_joined(tile.changes, omega))
        selected = self._selected(stack)
        omega = _omega(stack, lambda tile: selected(tile)[1:])
        if self.selection == "weights":
            return lambda tile: tile.base.add_(_joined(tile.changes, omega))

        def rule(tile: Tile) -> Flat:
            places, *changes = selected(tile)
            return tile.base.index_add_(0, places, _joined(changes, omega).to(stack.dtype))

        return rule

    def _selected(self, stack: Stack) -> Callable[[Tile], list[Tensor]]:
        """Where a tile's entries vary enough, and the changes there in float64."""
        spread = remembered(lambda tile: [_spread(tile)])
        (least,) = thresholds(stack.each, spread, [self.select_topk], nonzero=True)

        def selected(tile: Tile) -> list[Tensor]:
            (numbers,) = spread(tile)
            found = np.flatnonzero(numbers.cpu().numpy() >= least)  # numpy, for torch is slow to pick few
            places = torch.from_numpy(found).to(numbers.device)
            return [places, *tile.changes_at(places)]

        return remembered(selected)


def _omega(stack: Stack, changes: Callable[[Tile], list[Flat]]) -> list[float]:
    """Each model's share of the squares, all 0 where nothing changed."""
    squares = stack.total(lambda tile: torch.stack([d.dot(d) for d in map(torch.Tensor.double, changes(tile))]))
    return (squares / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)).tolist()


def _joined(changes: list[Flat], omega: list[float]) -> Flat:
    return agreeing(changes, omega, votes=[1.0] * len(omega))


def _spread(tile: Tile) -> Float[Tensor, " n"]:
    """Variance over the models times their number squared, S Σ x² - (Σ x)², in float32; exactly 0 where all are equal.

    x is the difference from the first model. Few of its bits are in use, and then no step rounds: equal variances are
    equal whatever the order of the models.
    """
    first, *others = tile.models
    apart = [other.sub_(first).double() for other in others]
    total = weighted_sum([1.0] * len(apart), apart)
    squares = weighted_sum([float(len(tile.models))] * len(apart), (x.mul_(x) for x in apart))
    spread = squares.sub_(total.mul_(total)).float()
    if not finite(spread):
        tile.check()
    return spread
