"""Task arithmetic and its relatives: thin out each model's changes, then add them up or let the agreeing ones count.

kind               which changes stay                                  how they are joined
task_arithmetic    all                                                 sum
ties               the largest                                         agreeing
dare_linear        random ones, enlarged by 1/density                  sum
dare_ties          the same                                            agreeing
della_linear       random ones, large ones more often                  sum
della              the same                                            agreeing
breadcrumbs        all but the largest and the smallest                sum
breadcrumbs_ties   the same                                            agreeing
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Discriminator, Field, Tag, model_validator
from torch import Tensor
from torch.nn.functional import hardshrink

from fusion.merge.averages import agreeing
from fusion.merge.method import Weighted, each, plain_numbers, weighted_sum
from fusion.merge.random import uniform
from fusion.merge.schedule import AsLayers, AsTensors, Finite, form
from fusion.merge.stack import Flat, Rule, Stack, Tile, gathered, remembered
from fusion.merge.threshold import edge, thresholds

Thin = Callable[[Tile], list[Flat]]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), Tag("(number)")]
Density = Annotated[Share | AsLayers | AsTensors, Discriminator(form)]
PerModel = Annotated[Share | AsLayers | AsTensors | Annotated[list[Density], Tag("(list)")], Discriminator(form)]
SKEWNESS = 0.9953
"""Skewness of |x| for a normal x: √2 (4/π - 1) / (1 - 2/π)^1.5."""


class Sparse(Weighted, ABC):
    """θ_0 + scale · join(w_s, thinned δ_s), where join is Σ w_s δ_s, or the same over those that agree in sign."""

    normalise: bool = Field(default=False, description="Divide by the sum of the weights that were added.")
    scale: Finite = Field(default=1.0, description="Factor on the joined change (lambda).")
    weighs: ClassVar[float | None] = 0.3
    elect: ClassVar[bool] = False
    """Whether each entry elects a sign, that of Σ w_s δ_s, and only changes of that sign count."""

    @abstractmethod
    def thin(self, stack: Stack) -> Thin:
        """What is left of each model's change in a tile."""

    def rule(self, stack: Stack) -> Rule:
        """θ_0 plus the thinned changes, joined."""
        shares, thin = self.shares(len(stack.models)), self.thin(stack)
        # relative to the largest, so that equal weights are exactly 1 and opposite changes cancel exactly
        votes = [share / max(shares) for share in shares] if self.elect else []
        total = sum(shares) if self.normalise and sum(shares) else 1.0

        def rule(tile: Tile) -> Flat:
            changes = thin(tile)
            if self.elect:
                joined = agreeing(changes, shares, votes, normalise=self.normalise)
            else:
                joined = weighted_sum(shares, changes).div_(total)
            return joined.mul_(self.scale).add_(tile.base)

        return rule


class Agreeing(Sparse, ABC):
    """Sparse changes of which each entry elects a sign, as TIES does. By default each model weighs 1/S."""

    normalise: bool = Field(default=True, description="Divide by the sum of the weights that agree.")
    weighs: ClassVar[float | None] = None
    elect: ClassVar[bool] = True

    @model_validator(mode="after")
    def _weights_can_vote(self) -> Agreeing:
        numbers = plain_numbers(self.weights)
        if any(number < 0 for number in numbers):
            raise ValueError(f"each weight must be greater than or equal to 0, got {numbers}")
        if self.weights and len(numbers) == len(self.weights) and not any(numbers):
            raise ValueError(f"the weights {numbers} are all 0; at least one must be positive")
        return self


class TaskArithmetic(Sparse):
    """θ_0 + Σ w_s δ_s: the changes add up, they are not averaged. By default each weighs 0.3.

    Source: Ilharco et al. 2023, arXiv:2212.04089, section 2; the default is FuseChat's, arXiv:2408.07990.
    """

    kind: Literal["task_arithmetic"] = "task_arithmetic"

    def thin(self, stack: Stack) -> Thin:
        """All of them."""
        return lambda tile: tile.changes


class TIES(Agreeing):
    """Trim small changes, elect a sign for each entry, average the changes that agree. By default each weighs 1/S.

    Trim keeps the `density` largest |δ_s| of each model's tensor (rounded down, at least one entry, and all that tie
    with the smallest kept; compared in float32). The elected sign is that of Σ w_s δ_s over the kept; an exact tie
    elects nobody and the entry stays at the base. The mean is Σ w_s δ_s / Σ w_s over the kept changes of that sign.

    Source: Yadav et al. 2023, arXiv:2306.01708, algorithm 1, with weights; density 0.6 is FuseChat's, arXiv:2408.07990.
    """

    kind: Literal["ties"] = "ties"
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
        limits = [edge(least) for least in thresholds(stack.total_of_many, magnitudes(stack), densities)]
        return lambda tile: [hardshrink(d, limit) for d, limit in zip(tile.changes, limits, strict=True)]


class DARE(Sparse, ABC):
    """Drop changes at random and enlarge the rest by 1/density, so that their expectation stays.

    Which entries stay depends on `seed`, the tensor's name, the model's place and the entry's place alone, so that
    neither threads nor tiles nor a resumed merge change it. Density 0.5 is our guess; the paper goes down to 0.1.

    Source: Yu et al. 2024, arXiv:2311.03099, section 3.2.
    """

    density: PerModel = Field(default=0.5, description="Chance of a change to be kept: one, or one a model.")
    seed: int = Field(default=0, description="Decides which changes are kept.")

    def thin(self, stack: Stack) -> Thin:
        """Each with the same chance."""
        densities = per_model(self.density, len(stack.models))

        def thin(tile: Tile) -> list[Flat]:
            draws = drawn(self.seed, tile)
            return [survivors(d, u, chance) for d, u, chance in zip(tile.changes, draws, densities, strict=True)]

        return thin


class DARELinear(DARE):
    """DARE's random changes, added up; by default each weighs 0.3."""

    kind: Literal["dare_linear"] = "dare_linear"


class DARETies(Agreeing, DARE):
    """DARE's random changes, joined as TIES joins: a sign is elected and the agreeing ones are averaged.

    Source: Yu et al. 2024, arXiv:2311.03099, section 3.3, with arXiv:2306.01708.
    """

    kind: Literal["dare_ties"] = "dare_ties"


class MagPrune(Sparse, ABC):
    """Drop changes at random, small ones more often, and enlarge the rest by 1/chance.

    Within a row the chance rises in equal steps from density - epsilon for the smallest |δ| to density + epsilon for
    the largest; equal magnitudes rank in the order of their places. A row of one has the chance `density`.

    Source: Deep et al. 2024 (MAGPRUNE), arXiv:2406.11617, section 3.1. Both defaults are our guess.
    """

    density: PerModel = Field(default=0.5, description="Mean chance of a change to be kept: one, or one a model.")
    epsilon: float = Field(
        default=0.15, ge=0, lt=0.5, description="Half the distance from the lowest chance to the highest."
    )
    seed: int = Field(default=0, description="Decides which changes are kept.")

    @model_validator(mode="after")
    def _chances_are_chances(self) -> MagPrune:
        for density in plain_numbers(self.density):
            if not self.epsilon < density <= 1 - self.epsilon:
                raise ValueError(
                    f"density {density} with epsilon {self.epsilon} gives chances from {density - self.epsilon:g} to "
                    f"{density + self.epsilon:g}; they must lie above 0 and at most at 1"
                )
        return self

    def thin(self, stack: Stack) -> Thin:
        """Each with the chance its rank gives it."""
        densities = per_model(self.density, len(stack.models))

        def thin(tile: Tile) -> list[Flat]:
            changes, draws = tile.changes, drawn(self.seed, tile)
            chances = [
                density + self.epsilon * _ranks(d, stack.row) for d, density in zip(changes, densities, strict=True)
            ]
            return [survivors(d, u, chance) for d, u, chance in zip(changes, draws, chances, strict=True)]

        return thin


class DELLALinear(MagPrune):
    """DELLA's changes, added up; by default each weighs 0.3."""

    kind: Literal["della_linear"] = "della_linear"


class DELLA(Agreeing, MagPrune):
    """DELLA's changes, joined as TIES joins: a sign is elected and the agreeing ones are averaged.

    Source: Deep et al. 2024, arXiv:2406.11617, section 3.
    """

    kind: Literal["della"] = "della"


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

    def thin(self, stack: Stack) -> Thin:
        """Those in the middle."""
        densities = per_model(self.density, len(stack.models))
        gamma = Fraction(str(self.gamma))
        within = [min(Fraction(1), Fraction(str(density)) + gamma) for density in densities]
        sizes = magnitudes(stack)
        low = [edge(least) for least in thresholds(stack.total_of_many, sizes, within)]
        high = [torch.inf] * len(low)
        if gamma * stack.size >= 1:
            high = [edge(least) for least in thresholds(stack.total_of_many, sizes, [gamma] * len(low))]

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


def per_model(density: Any, models: int) -> list[float]:
    """One density for each model. Raises ValueError where a list has another length."""
    densities = each(density if isinstance(density, list) else [density] * models)
    if len(densities) != models:
        raise ValueError(f"density lists {len(densities)} values for {models} models; give one each, or one for all.")
    return densities


def magnitudes(stack: Stack) -> Callable[[list[Tile]], list[Flat]]:
    """|δ_s| of each model in float32, of many tiles."""
    return gathered(remembered(lambda tile: tile.magnitudes, stack, len(stack.models)))


def drawn(seed: int, tile: Tile) -> list[Flat]:
    """A random number in [0, 1) for each entry of each model."""
    streams = [f"{seed}/{tile.stack.name}/{number}" for number in range(len(tile.changes))]
    return [uniform(stream, tile.start, tile.stop, tile.base.device) for stream in streams]


def survivors(change: Flat, draw: Flat, chance: float | Flat) -> Flat:
    """δ / chance where the draw lies below the chance, 0 elsewhere."""
    return (chance - draw).sign_().relu_().mul_(change).div_(chance)


def adapted(stack: Stack, densities: list[float]) -> list[float]:
    """Densities that follow a tensor's rate of change and the skewness of its changes; a guess at RSAF.

    The rate of a model is Σ|δ_s| / Σ|θ_0|, here relative to the mean over the models, for a tensor that changed more has
    more to say; the skewness is that of |δ_s|, relative to a normal distribution's, for where few entries hold the change
    few are enough. density_s · rate_s / mean rate · normal skewness / max(skewness_s, normal skewness), at most 1.

    Source: named in InfiFusion, arXiv:2501.02795v1; formula not published.
    """

    def powers(tile: Tile) -> Float[Tensor, "S 3"]:
        sizes = [change.abs() for change in tile.changes]
        return torch.stack([torch.stack([size.pow(p).sum() for p in (1, 2, 3)]) for size in sizes])

    moments = (stack.total(powers) / max(stack.size, 1)).cpu()
    first, second, third = moments.unbind(-1)
    variance = (second - first.square()).clamp(min=0)
    skewness = (third - 3 * first * second + 2 * first.pow(3)) / variance.pow(1.5).clamp(min=1e-300)
    rate = first * len(densities) / first.sum().clamp(min=1e-300)  # Σ|θ_0| is the same for all
    wanted = torch.tensor(densities, dtype=torch.float64) * rate * SKEWNESS / skewness.clamp(min=SKEWNESS)
    return wanted.clamp(min=1e-6, max=1.0).tolist()


def _ranks(change: Flat, row: int) -> Flat:
    """From -1 for the smallest |δ| of each row to 1 for the largest; 0 where a row is one entry."""
    if row == 1:
        return torch.zeros_like(change)
    order = change.abs().view(-1, row).argsort(dim=-1, stable=True)
    steps = torch.linspace(-1, 1, row, dtype=change.dtype, device=change.device)
    ranks = torch.empty_like(change).view(-1, row)
    return ranks.scatter_(1, order, steps.expand_as(order)).view(-1)
