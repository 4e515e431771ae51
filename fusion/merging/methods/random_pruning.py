"""Deltas dropped at random, the others rescaled: DARE with one probability for all, DELLA with a higher one for the large."""

from __future__ import annotations

import itertools
from abc import ABC
from typing import Annotated, Any, Literal

import torch
from pydantic import Discriminator, Field, Tag, model_validator
from typing_extensions import override

from fusion.merging.methods.base import constant_values
from fusion.merging.methods.schedule import AsLayers, AsSlices, AsTensors, FiniteFloat, schedule_form
from fusion.merging.methods.stateless_random import uniform
from fusion.merging.methods.task_vectors import (
    PerModelDensity,
    SignElectionMethod,
    Sparsifier,
    TaskVectorMethod,
    values_per_model,
)
from fusion.merging.methods.tiles import Flat, TensorStack, Tile

HalfRange = Annotated[FiniteFloat, Field(ge=0, lt=0.5), Tag("(number)")]
Epsilon = Annotated[HalfRange | AsLayers | AsTensors | AsSlices, Discriminator(schedule_form)]
PerModelEpsilon = Annotated[
    HalfRange | AsLayers | AsTensors | AsSlices | Annotated[list[Epsilon], Tag("(list)")], Discriminator(schedule_form)
]


class DARE(TaskVectorMethod, ABC):
    """Drop entries of the deltas at random and rescale the others by 1/density, so that their expectation stays.

    Which entries stay depends on `seed`, the tensor's name, the model's index and the entry's index alone, so that
    neither threads nor tiles nor a resumed merge change it. Density 0.5 is our guess; the paper goes down to 0.1.

    Source: Yu et al. 2024, arXiv:2311.03099, section 3.2.
    """

    density: PerModelDensity = Field(
        default=0.5, description="Probability that an entry is kept: one, or one per model."
    )
    seed: int = Field(default=0, description="Decides which entries are kept.")

    @override
    def sparsify(self, stack: TensorStack) -> Sparsifier:
        densities = values_per_model("density", self.density, len(stack.models))

        def sparsify(tile: Tile) -> list[Flat]:
            draws = uniform_draws(self.seed, tile)
            return [drop_and_rescale(*each) for each in zip(tile.deltas, draws, densities, strict=True)]

        return sparsify


class DARELinear(DARE):
    """DARE's sparsified deltas, added up; by default each weighs 0.3."""

    kind: Literal["dare_linear"] = "dare_linear"


class DARETies(SignElectionMethod, DARE):
    """DARE's sparsified deltas, merged as in TIES: a sign is elected and the agreeing ones are averaged.

    Source: Yu et al. 2024, arXiv:2311.03099, section 3.3, with arXiv:2306.01708.
    """

    kind: Literal["dare_ties"] = "dare_ties"


class MagPrune(TaskVectorMethod, ABC):
    """Drop entries of the deltas at random, small ones more often, and rescale the others by 1/probability.

    Within a row the probability of being kept rises in equal steps from density - epsilon for the smallest |δ| to density +
    epsilon for the largest; equal magnitudes rank in the order of their indices. In a row of one entry it is `density`.

    Source: Deep et al. 2024 (MAGPRUNE), arXiv:2406.11617, section 3.1. Both defaults are our guess.
    """

    density: PerModelDensity = Field(
        default=0.5, description="Mean probability that an entry is kept: one, or one per model."
    )
    epsilon: PerModelEpsilon = Field(
        default=0.15,
        description="Half the distance from the lowest probability to the highest: one, or one per model.",
    )
    seed: int = Field(default=0, description="Decides which entries are kept.")

    @model_validator(mode="after")
    def _probabilities_are_in_range(self) -> MagPrune:
        for density, epsilon in _pairs_of_constants(self.density, self.epsilon):
            if not epsilon < density <= 1 - epsilon:
                raise ValueError(
                    f"density {density} with epsilon {epsilon} gives probabilities from {density - epsilon:g} to "
                    f"{density + epsilon:g}; they must lie above 0 and at most at 1"
                )
        return self

    @override
    def sparsify(self, stack: TensorStack) -> Sparsifier:
        densities = values_per_model("density", self.density, len(stack.models))

        epsilons = values_per_model("epsilon", self.epsilon, len(stack.models))

        def sparsify(tile: Tile) -> list[Flat]:
            deltas, draws = tile.deltas, uniform_draws(self.seed, tile)
            ranks = [_magnitude_ranks(delta, stack.row_size) for delta in deltas]
            keep = [d + epsilon * rank for d, epsilon, rank in zip(densities, epsilons, ranks, strict=True)]
            return [drop_and_rescale(*each) for each in zip(deltas, draws, keep, strict=True)]

        return sparsify


class DELLALinear(MagPrune):
    """DELLA's sparsified deltas, added up; by default each weighs 0.3."""

    kind: Literal["della_linear"] = "della_linear"


class DELLA(SignElectionMethod, MagPrune):
    """DELLA's sparsified deltas, merged as in TIES: a sign is elected and the agreeing ones are averaged.

    Source: Deep et al. 2024, arXiv:2406.11617, section 3.
    """

    kind: Literal["della"] = "della"


def _pairs_of_constants(density: Any, epsilon: Any) -> list[tuple[float, float]]:
    """Density and epsilon of each model where both are numbers; schedules are checked tensor by tensor."""
    if not isinstance(density, list) or not isinstance(epsilon, list):
        pairs = itertools.product(constant_values(density), constant_values(epsilon))
        return list(pairs)
    pairs = zip(density, epsilon, strict=False)
    return [pair for pair in pairs if len(constant_values(list(pair))) == 2]


def uniform_draws(seed: int, tile: Tile) -> list[Flat]:
    """A uniform random number in [0, 1) for each entry of each model's delta in the tile."""
    streams = [f"{seed}/{tile.stack.name}/{number}" for number in range(len(tile.deltas))]
    return [uniform(stream, tile.start, tile.stop, device=tile.base.device) for stream in streams]


def drop_and_rescale(delta: Flat, draw: Flat, keep_probability: float | Flat) -> Flat:
    """δ / keep_probability where the draw lies below it, 0 elsewhere."""
    return (keep_probability - draw).sign_().relu_().mul_(delta).div_(keep_probability)


def _magnitude_ranks(delta: Flat, row_size: int) -> Flat:
    """Ranks in equal steps from -1 for the smallest |δ| of each row to 1 for the largest; 0 where a row is one entry."""
    if row_size == 1:
        return torch.zeros_like(delta)
    order = delta.abs().view(-1, row_size).argsort(dim=-1, stable=True)
    steps = torch.linspace(-1, 1, row_size, dtype=delta.dtype, device=delta.device)
    ranks = torch.empty_like(delta).view(-1, row_size)
    return ranks.scatter_(1, order, steps.expand_as(order)).view(-1)
