"""Universal logit distillation: two vocabularies compared by rank, without asking which token is which."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base_classes import PairObjective
from fusion.objectives.checks import as_target, require_whole


class ULD(PairObjective):
    """L1 distance of the sorted probabilities of the whole vocabularies; see `uld`."""

    kind: Literal["uld"] = "uld"
    pivot_temperature: float = Field(default=1.0, gt=0)
    """Divides the pivot's logits before the softmax."""
    source_temperature: float = Field(default=1.0, gt=0)
    """Divides the source's logits before the softmax."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return None

    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """One value for each pair, between 0 and 2. Raises ValueError where rows keep less than their vocabulary."""
        target = as_target(source, pivot)
        require_whole(pivot, "pivot", self.kind)
        require_whole(target, "source", self.kind)
        return uld(_heated(pivot, self.pivot_temperature), _heated(target, self.source_temperature))


def uld(pivot: Float[Tensor, "M V"], source: Float[Tensor, "M W"]) -> Float[Tensor, " M"]:
    """Sum over ranks of |p - q|, the shorter row padded with zeros: from 0 to 2, without unit.

    Both are probabilities in descending order. The value is the least L1 distance over all ways to match the two
    vocabularies one to one, so it sees the shape of a distribution and never which token is meant.

    Source: Boizard et al. 2024, arXiv:2402.12030, the Wasserstein distance with a uniform cost.
    """
    width = max(pivot.shape[1], source.shape[1])
    return (pad(pivot, (0, width - pivot.shape[1])) - pad(source, (0, width - source.shape[1]))).abs().sum(-1)


def _heated(rows: LogitRows, temperature: float) -> Float[Tensor, "M V"]:
    # at temperature 1 nothing is renormalised: the log-probabilities are those of the whole vocabulary already
    return rows.logprobs.exp() if temperature == 1 else (rows.logprobs / temperature).softmax(-1)
