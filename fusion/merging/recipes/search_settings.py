"""The section `search` of a recipe: on which examples weights are chosen, and by which algorithm."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fusion.core.settings import Settings


class GridSearch(Settings):
    """Every combination of these values."""

    kind: Literal["grid"] = "grid"
    values: list[float] = Field(default=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0], min_length=1)
    """What each weight may be."""


class NelderMead(Settings):
    """The downhill simplex, from the weights in the recipe, or the method's default ones."""

    kind: Literal["nelder_mead"] = "nelder_mead"
    evaluations: int = Field(default=30, ge=2)
    """At most so many merges are tried."""
    initial_step: float = Field(default=0.2, gt=0)
    """Size of the first simplex: how far it reaches from the start in each weight."""


SearchAlgorithm = Annotated[GridSearch | NelderMead, Field(discriminator="kind")]


class WeightSearch(Settings):
    """How weights are chosen. Validation data must not be what results are reported on."""

    validation: dict[str, Any]
    """A data set as in a run configuration: `path`, `domain`, `prompt`, `response`, and so on."""
    test: dict[str, Any] | None = None
    """Data that results will be reported on, so that an example in both is refused."""
    algorithm: SearchAlgorithm = NelderMead()
    """grid or nelder_mead, with its settings."""
