"""Relations among the positions of a text: which of two is more like a third, and by how much."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from fusion.core.rows import LogitRows
from fusion.objectives.base_classes import PairObjective
from fusion.objectives.hidden.states import RandomObjective, directions, drawn, row_numbers, states
from fusion.objectives.token.llp import margins
from fusion.objectives.token.outcomes import Outcomes, divergence, log_softmax


class SpanRelations(RandomObjective, PairObjective):
    """A margin for every two positions of which one is more like the anchor in the source, and the divergence over all of them.

    Each matched row is an anchor. Its context is the matched rows before and after it, and some of the same example drawn at
    random; its scores are the cosines of its hidden state with those of its context, within each model, so widths and
    vocabularies may differ. Rows that end at the same byte are matched, so a row stands for the span between two shared
    boundaries.

    Source: LLP, Guo et al. 2023, arXiv:2210.05801 (predicting links of a graph): a node is a position here, and the nodes that
    short random walks reach are its neighbours in the text. Random context of other sequences is left out: values would
    depend on the micro-batch. `delta` is the paper's, for probabilities; temperature and sizes of the context are guesses.
    """

    kind: Literal["span_relations"] = "span_relations"
    delta: float = Field(default=0.1, ge=0)
    """Margin between cosines; two positions that the source tells apart by no more take no part."""
    rank: float = Field(default=1.0, ge=0)
    """Weight of the margins, summed over pairs of positions."""
    distribution: float = Field(default=1.0, ge=0)
    """Weight of the divergence."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides the cosines of both in the divergence. A guess: the paper's 1 makes cosines almost even."""
    window: int = Field(default=2, ge=0)
    """Matched rows before and after the anchor, of each so many. A guess."""
    random: int = Field(default=4, ge=0)
    """Rows of the example drawn for each anchor, with replacement. A guess."""

    @model_validator(mode="after")
    def _some_context(self) -> SpanRelations:
        if 2 * self.window + self.random < 2:
            raise ValueError(
                "window: 0 needs random >= 2: relations are between two positions of the context of a third"
            )
        return self

    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """One value for each matched row, never negative; 0 where its example has no other."""
        context, there = self._context(pivot)
        pivot_cosines, source_cosines = (cosines(directions(hidden), context) for hidden in states(pivot, source))
        source_cosines, pivot_cosines = (
            source_cosines.masked_fill(~there, -torch.inf),
            pivot_cosines.masked_fill(~there, -torch.inf),
        )
        both = Outcomes(source_cosines, pivot_cosines, torch.zeros_like(there))
        over = (log_softmax(scores / self.temperature, both.empty) for scores in (source_cosines, pivot_cosines))
        value = self.rank * margins(both, self.delta) + self.distribution * divergence(*over)
        return value.to(pivot.gold.dtype)

    def _context(self, rows: LogitRows) -> tuple[Int[Tensor, "M C"], Bool[Tensor, "M C"]]:
        """The rows in each row's context, and which of them there are."""
        place, row = row_numbers(rows), torch.arange(len(rows), device=rows.example.device)
        examples, longest = (int(number.max()) + 1 if len(row) else 1 for number in (rows.example, place))
        count = torch.bincount(rows.example, minlength=examples)[rows.example][:, None]
        steps = torch.cat([torch.arange(-self.window, 0), torch.arange(1, self.window + 1)]).to(row.device)
        chance = drawn(longest, self.random, self.seed, rows.gold.double())[place]
        far = place[:, None] + 1 + (chance * (count - 1)).long()  # never the row itself
        wanted = torch.cat([place[:, None] + steps, far % count], dim=1)
        there = (wanted >= 0) & (wanted < count) & (count > 1)
        table = row.new_zeros(examples, longest).index_put((rows.example, place), row)
        return table[rows.example[:, None], wanted.clamp(min=0, max=longest - 1)], there


def cosines(direction: Float[Tensor, "M D"], context: Int[Tensor, "M C"]) -> Float[Tensor, "M C"]:
    """Of each row with the rows of its context."""
    return torch.einsum("md,mcd->mc", direction, direction[context])
