"""The pivot's hidden states, through a small network, against those of a source at the same bytes."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base_classes import PairObjective
from fusion.objectives.hidden.states import HiddenObjective, directions, present, side_by_side, states
from fusion.objectives.modules.base import ModuleObjective, ModuleSpec


class HiddenProjector(HiddenObjective, ModuleObjective, PairObjective):
    """Mean squared difference, over the source's width, between its hidden state and what a projector makes of the pivot's.

    The projector has two layers and is trained with the pivot, one for each source. Where both widths are the same it adds to
    the state, and nothing at first: then equal states give 0. Called without a module, the states are compared as they are.

    Source: the last-layer alignment of LLAVADI, Xu et al. 2024, arXiv:2407.19409, of models with one tokenizer there; of joined
    rows here. Adding to the state is ours. `disparity` stands for the mask of RDD, Li et al. 2023, arXiv:2308.10308, whose
    problem is least at a mask of zeros, read literally; that states which differ more count more is a guess.
    """

    kind: Literal["hidden_projector"] = "hidden_projector"
    disparity: float | None = Field(default=None, gt=0, le=1)
    """Weigh each row by its 1 - cosine, divided by this quantile of its example's and at most 1. 0.9 is usual; None weighs
    all alike."""

    @override
    def build_module(self, spec: ModuleSpec) -> Projector:
        """Two layers from the pivot's width to the source's."""
        return Projector(*spec.widths)

    def __call__(self, pivot: LogitRows, source: LogitRows, module: nn.Module | None = None) -> Float[Tensor, " M"]:
        """One value for each matched row, never negative."""
        pivot_states, source_states = states(pivot, source)
        pivot_states = pivot_states if module is None else module(pivot_states)
        value = (pivot_states - source_states).square().mean(-1)
        if self.disparity is not None:
            value = value * disparity(pivot_states.detach(), source_states, pivot, self.disparity)
        return value.to(pivot.gold.dtype)


class Projector(nn.Module):
    """W2 gelu(W1 h + b1) + b2, and h itself where both widths are the same; then W2 and b2 are 0 at first."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)
        self.adds = inputs == outputs
        if self.adds:
            nn.init.zeros_(self.second.weight)
            nn.init.zeros_(self.second.bias)

    def forward(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N D2"]:
        """States of the other width."""
        made = self.second(nn.functional.gelu(self.first(hidden)))
        return hidden + made if self.adds else made


def disparity(
    pivot_states: Float[Tensor, "M D"], source_states: Float[Tensor, "M D"], rows: LogitRows, quantile: float
) -> Float[Tensor, " M"]:
    """1 - cosine of each row, divided by that quantile of its example's, from 0 to 1; 1 where all of an example agree."""
    apart = 1 - (directions(pivot_states) * directions(source_states)).sum(-1)
    examples = int(rows.example.max()) + 1 if len(rows) else 0
    together = side_by_side(apart[:, None], rows, examples)[:, :, 0]
    together = together.masked_fill(~present(rows, examples), torch.nan)
    most = torch.nanquantile(together, quantile, dim=1)[rows.example] if len(rows) else apart
    return torch.where(most > 0, apart / most.masked_fill(most <= 0, 1), 1).clamp(0, 1)
