"""Which positions of a text resemble each other: the same in both models, whatever their widths and vocabularies."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fusion.core.rows import LogitRows
from fusion.objectives.base_classes import RelationObjective
from fusion.objectives.hidden.states import RandomObjective, directions, drawn, side_by_side, states


class Affinity(RandomObjective, RelationObjective):
    """Distance of the models' affinities: matrices of the cosines between the hidden states of an example's matched rows.

    G = F F' with the directions of n states as F [n, D], so widths may differ and nothing is projected. Of order 2 it is the
    Frobenius norm of G - G*, divided by n; of order 1 the sum of absolute values, divided by n^2. Rotations of either model's
    states and the length of each state change nothing. Cosines of j < i alone would give the same up to a factor, for G - G* is
    symmetric and 0 on its diagonal; so there is no option for causal models.

    With `sketch` k, the fast affinity, (G - G*) Z stands for G - G*, Z [n, k] drawn from a standard normal distribution and the
    same for both: n k D operations instead of n^2 D. The *square* of order 2 is then an unbiased estimate of the square, with
    relative variance 2 |(G - G*)^2|_F^2 / (k |G - G*|_F^4); the root is not, nor is order 1, which estimates sqrt(2 / pi) times
    the sum of the lengths of the rows of G - G*.

    Source: FA and FFA of FAQD, Li et al. 2023, arXiv:2302.10899, of places in a feature map; positions of a text here, and the
    last hidden state instead of three stages. Its code draws Z once for all (`fresh: false`) with k = 15.
    """

    kind: Literal["affinity"] = "affinity"
    order: Literal[1, 2] = 2
    """1: mean absolute difference of cosines; 2: root of their mean squared difference."""
    sketch: int | None = Field(default=None, ge=1)
    """Columns of Z; None takes all cosines."""

    def __call__(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        """One value for each example, never negative."""
        pivot_directions, source_directions = (
            side_by_side(directions(hidden), pivot, examples) for hidden in states(pivot, source)
        )  # E T D; a place that is not there has the direction 0, and so cosines of 0
        if self.sketch is None:
            apart, columns = pivot_directions @ pivot_directions.mT - source_directions @ source_directions.mT, 1
        else:
            z, columns = (
                drawn(pivot_directions.shape[1], self.sketch, self.seed, pivot_directions, normal=True),
                self.sketch,
            )
            apart = pivot_directions @ (pivot_directions.mT @ z) - source_directions @ (source_directions.mT @ z)
        rows = torch.bincount(pivot.example, minlength=examples).clamp(min=1)
        apart = apart.flatten(1)
        if self.order == 1:
            value = apart.abs().sum(-1) / (columns * rows**2)
        else:
            value = torch.linalg.vector_norm(apart, dim=-1) / (columns**0.5 * rows)
        return value.to(pivot.gold.dtype)
