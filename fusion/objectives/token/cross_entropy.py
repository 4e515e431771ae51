"""Cross-entropy on the text itself: plain fine-tuning, and the only term that needs no source."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import RowObjective
from fusion.objectives.targets import BatchTargets


class CrossEntropy(RowObjective):
    """Negative log-probability of the token that really follows, in nats.

    On the texts that the pivot wrote and that passed their check (`part: right_rollouts`) it is rejection sampling; see Yuan et
    al. 2023, arXiv:2308.01825.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    part: Literal["all", "rollouts", "right_rollouts", "replay", "chosen"] = "all"
    """Which texts count. In rounds: what the pivot wrote (rollouts), what of it passed its check (right_rollouts), or the
    answers that it learned from before (replay). In preferences: right answers (chosen). Elsewhere all is the only choice."""

    @property
    @override
    def requirements(self) -> Requirements:
        in_rounds = self.part not in ("all", "chosen")
        return dataclasses.replace(super().requirements, rollouts=in_rounds, preferences=self.part == "chosen")

    @override
    def counted_rows(self, targets: BatchTargets) -> Bool[Tensor, " N"] | None:
        return None if self.part == "all" else targets.is_row_of(self._is_counted)

    def _is_counted(self, info: ExampleInfo) -> bool:
        if self.part == "right_rollouts":
            return info.part == "rollouts" and info.passed
        return info.part == self.part

    @property
    @override
    def required_top_k(self) -> int | None:
        return 0

    def __call__(self, pivot: LogitRows) -> Float[Tensor, " N"]:
        """One value for each row, never negative."""
        return -pivot.gold
