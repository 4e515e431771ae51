"""Changes thinned out by their size: TIES keeps the largest, breadcrumbs those in the middle."""

from __future__ import annotations

from abc import ABC
from fractions import Fraction
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import hardshrink

from fusion.merging.methods.sparse import Agreeing, PerModel, Sparse, Thin, per_model
from fusion.merging.methods.threshold import edge, thresholds
from fusion.merging.methods.tiles import Flat, Stack, Tile, remembered

SKEWNESS = 0.9953
"""Skewness of |x| for a normal x: √2 (4/π - 1) / (1 - 2/π)^1.5."""


class TIES(Agreeing):
    """Trim small changes, elect a sign for each entry, average the changes that agree. By default each weighs 1/S.

    Trim keeps the `density` largest |δ_s| of each model's tensor (rounded down, at least one entry, and all that tie
    with the smallest kept; compared in float32). The elected sign is that of Σ w_s δ_s over the kept; an exact tie
    elects nobody and the entry stays at the base. The mean is Σ w_s δ_s / Σ w_s over the kept changes of that sign.

    Source: Yadav et al. 2023, arXiv:2306.01708, algorithm 1, with weights; density 0.6 is FuseChat's, arXiv:2408.07990.
    """

    kind: Literal["ties"] = "ties"
    exact: ClassVar[bool] = False
    density: PerModel = Field(
        default=0.6, description="Fraction of a model's changes that is kept: one, or one a model."
    )
    adaptive: bool = Field(
        default=False,
        description="Let each tensor's density follow how much it changed and how skewed its changes are: our guess at "
        "InfiFusion's RSAF, whose formula is not public; see `adapted`.",
    )

    def thin(self, stack: Stack) -> Thin:
        """The largest."""
        densities = per_model(self.density, len(stack.models))
        if self.adaptive:
            densities = adapted(stack, densities)
        if min(densities) == 1:
            return lambda tile: tile.changes
        limits = [edge(at, stack.dtype) for at in thresholds(stack.each, remembered(Tile.magnitudes), densities)]
        return lambda tile: [hardshrink(d, limit) for d, limit in zip(tile.changes, limits, strict=True)]


class Middle(Sparse, ABC):
    """Leave out the largest changes, which may be outliers, and the smallest, which are noise.

    Of n changes the n·gamma largest are left out (rounded down), and of the others all but the `density` share of n;
    changes that tie with the last left out or the last kept go with it.

    Source: Davari and Belilovsky 2024, arXiv:2312.06795, section 3. Density 0.9 and gamma 0.01 are our guess.
    """

    density: PerModel = Field(
        default=0.9, description="Fraction of a model's changes that is kept: one, or one a model."
    )
    gamma: float = Field(
        default=0.01, ge=0, lt=1, description="Fraction of the changes, the largest, that is left out."
    )
    exact: ClassVar[bool] = False

    def thin(self, stack: Stack) -> Thin:
        """Those in the middle."""
        densities = per_model(self.density, len(stack.models))
        gamma = Fraction(str(self.gamma))
        within = [min(Fraction(1), Fraction(str(density)) + gamma) for density in densities]
        sizes = remembered(Tile.magnitudes)
        low = [edge(at, stack.dtype) for at in thresholds(stack.each, sizes, within)]
        high = [torch.inf] * len(low)
        if gamma * stack.size >= 1:
            high = [edge(at, stack.dtype) for at in thresholds(stack.each, sizes, [gamma] * len(low))]

        def thin(tile: Tile) -> list[Flat]:
            bounds = zip(tile.changes, low, high, strict=True)
            return [hardshrink(d, least) - hardshrink(d, most) for d, least, most in bounds]

        return thin


class Breadcrumbs(Middle):
    """The changes in the middle, added up; by default each weighs 0.3."""

    kind: Literal["breadcrumbs"] = "breadcrumbs"


class BreadcrumbsTies(Agreeing, Middle):
    """The changes in the middle, joined as TIES joins: a sign is elected and the agreeing ones are averaged."""

    kind: Literal["breadcrumbs_ties"] = "breadcrumbs_ties"


def adapted(stack: Stack, densities: list[float]) -> list[float]:
    """Densities that follow a tensor's rate of change and the skewness of its changes; a guess at RSAF.

    The rate of a model is Σ|δ_s| / Σ|θ_0|, here relative to the mean over the models, for a tensor that changed more has
    more to say; the skewness is that of |δ_s|, relative to a normal distribution's, for where few entries hold the change
    few are enough. density_s · rate_s / mean rate · normal skewness / max(skewness_s, normal skewness), at most 1.

    Source: named in InfiFusion, arXiv:2501.02795v1; formula not published.
    """

    def powers(tile: Tile) -> Float[Tensor, "S 3"]:
        sizes = [change.abs().double() for change in tile.changes]
        return torch.stack([torch.stack([size.pow(p).sum() for p in (1, 2, 3)]) for size in sizes])

    moments = (stack.total(powers) / max(stack.size, 1)).cpu()
    first, second, third = moments.unbind(-1)
    variance = (second - first.square()).clamp(min=0)
    skewness = (third - 3 * first * second + 2 * first.pow(3)) / variance.pow(1.5).clamp(min=1e-300)
    rate = first * len(densities) / first.sum().clamp(min=1e-300)  # Σ|θ_0| is the same for all
    wanted = torch.tensor(densities, dtype=torch.float64) * rate * SKEWNESS / skewness.clamp(min=SKEWNESS)
    return wanted.clamp(min=1e-6, max=1.0).tolist()
