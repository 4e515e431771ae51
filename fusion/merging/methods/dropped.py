"""Changes dropped at random and the rest enlarged: DARE with one chance for all, DELLA with more for the large."""

from __future__ import annotations

from abc import ABC
from typing import Literal

import torch
from pydantic import Field, model_validator

from fusion.merging.methods.base import plain_numbers
from fusion.merging.methods.sparse import Agreeing, PerModel, Sparse, Thin, per_model
from fusion.merging.methods.stateless_random import uniform
from fusion.merging.methods.tiles import Flat, Stack, Tile


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


def drawn(seed: int, tile: Tile) -> list[Flat]:
    """A random number in [0, 1) for each entry of each model."""
    streams = [f"{seed}/{tile.stack.name}/{number}" for number in range(len(tile.changes))]
    return [uniform(stream, tile.start, tile.stop, tile.base.device) for stream in streams]


def survivors(change: Flat, draw: Flat, chance: float | Flat) -> Flat:
    """δ / chance where the draw lies below the chance, 0 elsewhere."""
    return (chance - draw).sign_().relu_().mul_(change).div_(chance)


def _ranks(change: Flat, row: int) -> Flat:
    """From -1 for the smallest |δ| of each row to 1 for the largest; 0 where a row is one entry."""
    if row == 1:
        return torch.zeros_like(change)
    order = change.abs().view(-1, row).argsort(dim=-1, stable=True)
    steps = torch.linspace(-1, 1, row, dtype=change.dtype, device=change.device)
    ranks = torch.empty_like(change).view(-1, row)
    return ranks.scatter_(1, order, steps.expand_as(order)).view(-1)
