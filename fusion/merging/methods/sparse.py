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
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from fusion.merging.methods.base import Weighted, each, plain_numbers, weighted_sum
from fusion.merging.methods.schedule import AsLayers, AsTensors, Finite, form
from fusion.merging.methods.sign_election import agreeing
from fusion.merging.methods.tiles import Flat, Rule, Stack, Tile

Thin = Callable[[Tile], list[Flat]]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), Tag("(number)")]
Density = Annotated[Share | AsLayers | AsTensors, Discriminator(form)]
PerModel = Annotated[Share | AsLayers | AsTensors | Annotated[list[Density], Tag("(list)")], Discriminator(form)]


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
        plain = [share / total for share in shares]

        def joined(changes: list[Flat]) -> Flat:
            if self.elect:
                return agreeing(changes, shares, votes, normalise=self.normalise)
            return weighted_sum(plain, changes)

        return lambda tile: tile.base.add_(joined(thin(tile)), alpha=self.scale)


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
    exact: ClassVar[bool] = False

    def thin(self, stack: Stack) -> Thin:
        """All of them."""
        return lambda tile: tile.changes


def per_model(density: Any, models: int) -> list[float]:
    """One density for each model. Raises ValueError where a list has another length."""
    densities = each(density if isinstance(density, list) else [density] * models)
    if len(densities) != models:
        raise ValueError(f"density lists {len(densities)} values for {models} models; give one each, or one for all.")
    return densities
