"""Deltas sparsified by magnitude: TIES keeps the largest entries, breadcrumbs those in the middle."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Discriminator, Field, Tag
from torch import Tensor
from torch.nn.functional import hardshrink
from typing_extensions import override

from fusion.merging.methods.schedule import AsLayers, AsSlices, AsTensors, FiniteFloat, schedule_form
from fusion.merging.methods.task_vectors import (
    PerModelDensity,
    SignElectionMethod,
    Sparsifier,
    TaskVectorMethod,
    values_per_model,
)
from fusion.merging.methods.threshold import largest_below, thresholds
from fusion.merging.methods.tiles import Flat, TensorStack, Tile, cached_per_tile

OutlierFraction = Annotated[FiniteFloat, Field(ge=0, lt=1), Tag("(number)")]
Gamma = Annotated[OutlierFraction | AsLayers | AsTensors | AsSlices, Discriminator(schedule_form)]
PerModelGamma = Annotated[
    OutlierFraction | AsLayers | AsTensors | AsSlices | Annotated[list[Gamma], Tag("(list)")],
    Discriminator(schedule_form),
]
NORMAL_SKEWNESS = 0.9953
"""Skewness of |x| for a normal x: √2 (4/π - 1) / (1 - 2/π)^1.5."""


class TIES(SignElectionMethod):
    """Trim small entries, elect a sign for each entry, average the deltas that agree. By default each weighs 1/S.

    Trim keeps the `density` largest |δ_s| of each model's tensor (rounded down, at least one entry, and all that tie
    with the smallest kept; compared in float32). The elected sign is that of Σ w_s δ_s over the kept; an exact tie
    elects nobody and the entry stays at the base. The mean is Σ w_s δ_s / Σ w_s over the kept deltas of that sign.

    Source: Yadav et al. 2023, arXiv:2306.01708, algorithm 1, with weights; density 0.6 is FuseChat's, arXiv:2408.07990.
    """

    kind: Literal["ties"] = "ties"
    always_float64: ClassVar[bool] = False
    density: PerModelDensity = Field(
        default=0.6, description="Fraction of a model's delta that is kept: one, or one per model."
    )
    adaptive: bool = Field(
        default=False,
        description="Let each tensor's density follow how much it changed and how skewed its delta is: our guess at "
        "InfiFusion's RSAF, whose formula is not public; see `adaptive_densities`.",
    )

    @override
    def sparsify(self, stack: TensorStack) -> Sparsifier:
        densities = values_per_model("density", self.density, len(stack.models))
        if self.adaptive:
            densities = adaptive_densities(stack, densities)
        if min(densities) == 1:
            return lambda tile: tile.deltas
        limits = _shrinkage_limits(stack, cached_per_tile(Tile.magnitudes), densities)
        return lambda tile: [hardshrink(delta, limit) for delta, limit in zip(tile.deltas, limits, strict=True)]


class MagnitudeOutliers(TaskVectorMethod, ABC):
    """Leave out the largest entries of a delta, which may be outliers, and the smallest, which are noise.

    Of n entries the n·gamma largest are left out, and of the others all but the largest n·density (both rounded down);
    entries that tie with the last left out or the last kept go with it.

    Source: Davari and Belilovsky 2024, arXiv:2312.06795, section 3. Density 0.9 and gamma 0.01 are our guess.
    """

    density: PerModelDensity = Field(
        default=0.9, description="Fraction of a model's delta that is kept: one, or one per model."
    )
    gamma: PerModelGamma = Field(
        default=0.01, description="Fraction of the entries, the largest, that is left out: one, or one per model."
    )
    always_float64: ClassVar[bool] = False

    @override
    def sparsify(self, stack: TensorStack) -> Sparsifier:
        densities = values_per_model("density", self.density, len(stack.models))
        gammas = [Fraction(str(gamma)) for gamma in values_per_model("gamma", self.gamma, len(stack.models))]
        kept_or_outlier = [_counted(*both, stack.size) for both in zip(densities, gammas, strict=True)]
        magnitudes = cached_per_tile(Tile.magnitudes)
        lower = _shrinkage_limits(stack, magnitudes, kept_or_outlier)
        upper = [torch.inf] * len(lower)
        if any(gamma * stack.size >= 1 for gamma in gammas):
            limits = _shrinkage_limits(stack, magnitudes, gammas)  # which is the largest entry even where gamma is none
            upper = [low if gamma * stack.size >= 1 else torch.inf for low, gamma in zip(limits, gammas, strict=True)]

        def sparsify(tile: Tile) -> list[Flat]:
            bounded = zip(tile.deltas, lower, upper, strict=True)
            return [hardshrink(delta, low) - hardshrink(delta, high) for delta, low, high in bounded]

        return sparsify


def _counted(density: float, gamma: Fraction, size: int) -> Fraction:
    """The fraction that is kept or left out as too large, each rounded down to whole entries of `size`."""
    entries = math.floor(Fraction(str(density)) * size) + math.floor(gamma * size)
    return min(Fraction(1), Fraction(entries, max(size, 1)))


class Breadcrumbs(MagnitudeOutliers):
    """The deltas without their largest and smallest entries, added up; by default each weighs 0.3."""

    kind: Literal["breadcrumbs"] = "breadcrumbs"


class BreadcrumbsTies(SignElectionMethod, MagnitudeOutliers):
    """The deltas of breadcrumbs, merged as in TIES: a sign is elected and the agreeing ones are averaged."""

    kind: Literal["breadcrumbs_ties"] = "breadcrumbs_ties"


def adaptive_densities(stack: TensorStack, densities: list[float]) -> list[float]:
    """Scale each model's density by the tensor's rate of change and the skewness of its delta: a guess at RSAF.

    The rate of a model is Σ|δ_s| / Σ|θ_0|, here relative to the mean over the models, for a tensor that changed more has
    more to say; the skewness is that of |δ_s|, relative to a normal distribution's, for where few entries hold the change
    few are enough. density_s · rate_s / mean rate · normal skewness / max(skewness_s, normal skewness), at most 1.

    Source: named in InfiFusion, arXiv:2501.02795v1; formula not published.
    """

    def powers(tile: Tile) -> Float[Tensor, "S 3"]:
        return torch.stack([_power_sums(delta.abs().double()) for delta in tile.deltas])

    moments = (stack.sum_over_tiles(powers) / max(stack.size, 1)).cpu()
    first, second, third = moments.unbind(-1)
    variance = (second - first.square()).clamp(min=0)
    skewness = (third - 3 * first * second + 2 * first.pow(3)) / variance.pow(1.5).clamp(min=1e-300)
    rate = first * len(densities) / first.sum().clamp(min=1e-300)  # Σ|θ_0| is the same for all
    adapted = (
        torch.tensor(densities, dtype=torch.float64) * rate * NORMAL_SKEWNESS / skewness.clamp(min=NORMAL_SKEWNESS)
    )
    return adapted.clamp(min=1e-6, max=1.0).tolist()


def _power_sums(magnitudes: Flat) -> Float[Tensor, " 3"]:
    """Σ x, Σ x² and Σ x³."""
    return torch.stack([magnitudes.pow(power).sum() for power in (1, 2, 3)])


def _shrinkage_limits(
    stack: TensorStack, magnitudes: Callable[[Tile], list[Flat]], fractions: Sequence[float | Fraction]
) -> list[float]:
    """For each model the limit above which `hardshrink` keeps that fraction of its delta."""
    return [largest_below(t, stack.dtype) for t in thresholds(stack.for_each_tile, magnitudes, fractions)]
