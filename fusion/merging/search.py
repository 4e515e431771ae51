"""Merge weights chosen by a score on validation data: a grid, or Nelder and Mead's simplex from the weights one has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from fusion.core.settings import Settings

Weights = tuple[float, ...]


class Grid(Settings):
    """Every combination of these values."""

    kind: Literal["grid"] = "grid"
    values: list[float] = Field(default=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0], min_length=1)
    """What each weight may be."""


class NelderMead(Settings):
    """The downhill simplex, from the weights that stand in the recipe, or the method's default."""

    kind: Literal["nelder_mead"] = "nelder_mead"
    evaluations: int = Field(default=30, ge=2)
    """At most so many merges are tried."""
    spread: float = Field(default=0.2, gt=0)
    """How far the first steps go, in each weight."""


class Search(Settings):
    """How weights are chosen. Validation data must not be what results are reported on."""

    validation: dict[str, Any]
    """A data set as in a run configuration: `path`, `domain`, `prompt`, `response`, and so on."""
    test: dict[str, Any] | None = None
    """Data that results will be reported on, so that an example in both is refused."""
    how: Annotated[Grid | NelderMead, Field(discriminator="kind")] = NelderMead()


@dataclass
class Trials:
    """What was tried, in order, with its score; lower is better."""

    score: Callable[[Weights], float]
    tried: dict[Weights, float] = field(default_factory=dict)

    def __call__(self, weights: Sequence[float]) -> float:
        """The score, worked out once."""
        key = tuple(round(float(weight), 6) for weight in weights)
        if key not in self.tried:
            self.tried[key] = self.score(key)
        return self.tried[key]

    @property
    def best(self) -> Weights:
        """The first of those with the lowest score."""
        return min(self.tried, key=lambda weights: self.tried[weights])


def search(score: Callable[[Weights], float], start: Sequence[float], how: Grid | NelderMead) -> Trials:
    """Everything that was tried. The start is always among it, so that the best is never worse than no search."""
    trials = Trials(score)
    trials(start)
    if isinstance(how, Grid):
        for weights in itertools.product(how.values, repeat=len(start)):
            trials(weights)
        return trials
    from scipy.optimize import minimize

    simplex = [list(start)] + [[w + how.spread * (i == j) for j, w in enumerate(start)] for i in range(len(start))]
    options = {"maxfev": how.evaluations - 1, "initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6}
    minimize(lambda weights: trials(weights.tolist()), list(start), method="Nelder-Mead", options=options)
    return trials
