"""Task arithmetic and its relatives: sparsify each model's task vector (its delta), then add them up or merge by elected sign.

kind               which entries of a delta stay                       how deltas are combined
task_arithmetic    all                                                 sum
ties               the largest                                         elected sign
dare_linear        random ones, rescaled by 1/density                  sum
dare_ties          the same                                            elected sign
della_linear       random ones, large ones more often                  sum
della              the same                                            elected sign
breadcrumbs        all but the largest and the smallest                sum
breadcrumbs_ties   the same                                            elected sign
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from typing_extensions import override

from fusion.merging.methods.base import WeightedMethod, as_numbers, constant_values, weighted_sum
from fusion.merging.methods.schedule import AsLayers, AsSlices, AsTensors, FiniteFloat, Schedule, schedule_form
from fusion.merging.methods.sign_election import disjoint_merge
from fusion.merging.methods.tiles import Flat, Rule, TensorStack, Tile

Sparsifier = Callable[[Tile], list[Flat]]
"""Gives the sparsified δ_s of each model in a tile."""
PositiveFraction = Annotated[FiniteFloat, Field(gt=0, le=1), Tag("(number)")]
Density = Annotated[PositiveFraction | AsLayers | AsTensors | AsSlices, Discriminator(schedule_form)]
PerModelDensity = Annotated[
    PositiveFraction | AsLayers | AsTensors | AsSlices | Annotated[list[Density], Tag("(list)")],
    Discriminator(schedule_form),
]


class TaskVectorMethod(WeightedMethod, ABC):
    """θ_0 + lambda · combine(w_s, sparsified δ_s): the sum Σ w_s δ_s, or the same over deltas of the elected sign."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    normalize: bool = Field(default=False, description="Divide by the sum of the weights that were added.")
    # `lambda` is a keyword of Python, so the field has another name there; files and records have mergekit's
    lambda_: Schedule = Field(
        default=1.0,
        validation_alias="lambda",
        serialization_alias="lambda",
        description="Factor on the combined task vectors.",
    )
    default_weight: ClassVar[float | None] = 0.3
    elect_sign: ClassVar[bool] = False
    """Whether each entry elects a sign, that of Σ w_s δ_s, and only deltas of that sign count."""

    @abstractmethod
    def sparsify(self, stack: TensorStack) -> Sparsifier:
        """The function that sparsifies the deltas of one tile; what depends on the whole tensor is computed here, before."""

    @override
    def rule(self, stack: TensorStack) -> Rule:
        weights, sparsify = self.model_weights(len(stack.models)), self.sparsify(stack)
        # relative to the largest, so that equal weights are exactly 1 and opposite deltas cancel exactly
        votes = [weight / max(weights) for weight in weights] if self.elect_sign else []
        total = sum(weights) if self.normalize and sum(weights) else 1.0
        scaled_weights = [weight / total for weight in weights]

        def combine(deltas: list[Flat]) -> Flat:
            if self.elect_sign:
                return disjoint_merge(deltas, weights, votes, normalize=self.normalize)
            return weighted_sum(scaled_weights, deltas)

        (factor,) = as_numbers([self.lambda_])
        return lambda tile: tile.base.add_(combine(sparsify(tile)), alpha=factor)


class SignElectionMethod(TaskVectorMethod, ABC):
    """Sparsified deltas of which each entry elects a sign, as TIES does. By default each model weighs 1/S."""

    normalize: bool = Field(default=True, description="Divide by the sum of the weights that agree.")
    default_weight: ClassVar[float | None] = None
    elect_sign: ClassVar[bool] = True

    @model_validator(mode="after")
    def _weights_can_vote(self) -> SignElectionMethod:
        numbers = constant_values(self.weights)
        if any(number < 0 for number in numbers):
            raise ValueError(f"each weight must be greater than or equal to 0, got {numbers}")
        if self.weights and len(numbers) == len(self.weights) and not any(numbers):
            raise ValueError(f"the weights {numbers} are all 0; at least one must be positive")
        return self


class TaskArithmetic(TaskVectorMethod):
    """θ_0 + Σ w_s δ_s: the task vectors add up, they are not averaged. By default each weighs 0.3.

    Source: Ilharco et al. 2023, arXiv:2212.04089, section 2; the default is FuseChat's, arXiv:2408.07990.
    """

    kind: Literal["task_arithmetic"] = "task_arithmetic"
    always_float64: ClassVar[bool] = False

    @override
    def sparsify(self, stack: TensorStack) -> Sparsifier:
        return lambda tile: tile.deltas


def values_per_model(name: str, setting: Any, count: int) -> list[float]:
    """The value of the setting `name` for each of `count` models. Raises ValueError where a list has another length."""
    values = as_numbers(setting if isinstance(setting, list) else [setting] * count)
    if len(values) != count:
        raise ValueError(f"{name} lists {len(values)} values for {count} models; give one each, or one for all.")
    return values
