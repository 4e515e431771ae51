"""Cross-entropy on the text itself: plain fine-tuning, and the only term that needs no source."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base_classes import RowObjective


class CrossEntropy(RowObjective):
    """Negative log-probability of the token that really follows, in nats."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    @property
    @override
    def required_top_k(self) -> int | None:
        return 0

    def __call__(self, pivot: LogitRows) -> Float[Tensor, " N"]:
        """One value for each row, never negative."""
        return -pivot.gold
