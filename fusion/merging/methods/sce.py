"""Select the entries that vary most, calculate each model's weight from them, erase minority signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.merging.methods.base import MergeMethod, as_numbers, constant_values, weighted_sum
from fusion.merging.methods.sign_election import disjoint_merge
from fusion.merging.methods.task_vectors import Density
from fusion.merging.methods.threshold import thresholds
from fusion.merging.methods.tiles import Flat, Rule, TensorStack, Tile, all_finite, cached_per_tile


class SCE(MergeMethod):
    """Select entries by variance over the models, calculate each model's weight, erase minority signs.

    Select keeps the entries whose variance of δ over the models is among the `select_topk` largest, counted among the
    variances that are not zero (rounded down, at least one, and all that tie with the smallest kept; compared in
    float32); the others stay at the base. With 1 nothing is selected away, deltas common to all included. Calculate:
    ω_s is proportional to the mean square of the selected δ_s. Erase: the sign of an entry is that of Σ δ_s, an exact
    tie leaves it at the base; the result is Σ ω_s δ_s / Σ ω_s over the deltas of that sign.

    Source: Wan et al. 2024 (FuseChat), arXiv:2408.07990, section 3.3.
    """

    kind: Literal["sce"] = "sce"
    always_float64: ClassVar[bool] = False
    select_topk: Density = Field(default=0.1, description="Fraction of the entries that vary which is merged.")
    selection: Literal["deltas", "weights"] = Field(
        default="deltas",
        description="What the selection applies to: the deltas themselves, as in mergekit, or only the weights ω, so "
        "that entries that were not selected are merged too, as in FuseAI's own code.",
    )

    @override
    def check_models(self, count: int) -> None:
        super().check_models(count)
        if count == 1 and min(constant_values(self.select_topk), default=1) < 1:
            raise ValueError(
                f"sce selects entries by their variance over models and one model has none: with select_topk "
                f"{self.select_topk} the result would be the base. Give more models, set select_topk to 1, or use ties."
            )

    @override
    def rule(self, stack: TensorStack) -> Rule:
        (top,) = as_numbers([self.select_topk])
        if top == 1:
            omega = _omega(stack, lambda tile: tile.deltas)
            return lambda tile: tile.base.add_(_erase_and_merge(tile.deltas, omega))
        selected = _selected(stack, top)
        omega = _omega(stack, lambda tile: selected(tile)[1:])
        if self.selection == "weights":
            return lambda tile: tile.base.add_(_erase_and_merge(tile.deltas, omega))

        def rule(tile: Tile) -> Flat:
            indices, *deltas = selected(tile)
            return tile.base.index_add_(0, indices, _erase_and_merge(deltas, omega).to(stack.dtype))

        return rule


def _selected(stack: TensorStack, top: float) -> Callable[[Tile], list[Tensor]]:
    """For a tile the indices of the selected entries, and then each model's deltas there in float64."""
    variance = cached_per_tile(lambda tile: [_variance_score(tile)])
    (threshold,) = thresholds(stack.for_each_tile, variance, [top], nonzero=True)

    def selected(tile: Tile) -> list[Tensor]:
        (scores,) = variance(tile)
        above = np.flatnonzero(scores.cpu().numpy() >= threshold)  # numpy, for torch is slow to pick few
        indices = torch.from_numpy(above).to(scores.device)
        return [indices, *tile.deltas_at(indices)]

    return cached_per_tile(selected)


def _omega(stack: TensorStack, deltas: Callable[[Tile], list[Flat]]) -> list[float]:
    """ω_s: each model's Σ δ² as a fraction of all models', all 0 where nothing changed."""
    squares = stack.sum_over_tiles(lambda tile: torch.stack([d.dot(d) for d in map(torch.Tensor.double, deltas(tile))]))
    return (squares / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)).tolist()


def _erase_and_merge(deltas: list[Flat], omega: list[float]) -> Flat:
    """Erase minority signs, every model having one vote, and average the others by ω."""
    return disjoint_merge(deltas, omega, votes=[1.0] * len(omega))


def _variance_score(tile: Tile) -> Float[Tensor, " n"]:
    """Variance over the models times their number squared, S Σ x² - (Σ x)², in float32; exactly 0 where all are equal.

    x is the difference from the first model. Few of its bits are in use, and then no step rounds: equal variances are
    equal whatever the order of the models.
    """
    first, *others = tile.models
    differences = [other.sub_(first).double() for other in others]
    total = weighted_sum([1.0] * len(differences), differences)
    squares = weighted_sum([float(len(tile.models))] * len(differences), (x.mul_(x) for x in differences))
    score = squares.sub_(total.mul_(total)).float()
    if not all_finite(score):
        tile.check_finite()
    return score
