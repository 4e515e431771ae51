"""A temperature on the source alone."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import Field
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.core.tail import Tail, log_power_sum
from fusion.transforms.base import SourceTransform


class Power(SourceTransform):
    """Every probability to the power gamma, divided by their sum over the whole vocabulary: softmax(logits gamma).

    Done in the source's own vocabulary, for power and map do not commute. The sum needs the whole row; from the largest
    entries it is known within bounds, and `tail` says which is taken.

    Source: the power transform of TTM, Zheng and Yang 2024, arXiv:2402.11148, gamma = 1/T (images). With forward KL
    it is their term, the temperature on the teacher alone; with the weighting `power_sum` at the same gamma, WTTM.
    """

    kind: Literal["power"] = "power"
    gamma: float = Field(gt=0)
    """The power, the inverse of a temperature. The paper's are 0.1 and 0.2 over a thousand classes; over a vocabulary, 0.5 to
    0.9 is our guess."""
    tail: Tail = "exact"
    """What is assumed of the mass outside a row's entries: `exact`, that there is none (needs whole rows); `single`, that it
    is one token's; `even`, that all other tokens have the same. The truth lies between the last two."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return None if self.tail == "exact" else 0

    def __call__(self, rows: LogitRows, vocabulary: int) -> LogitRows:
        """The changed rows; their moments are those of the changed logits."""
        total = log_power_sum(rows.logprobs.double(), self.gamma, self.tail, vocabulary).to(rows.logprobs)
        return dataclasses.replace(
            rows,
            logprobs=rows.logprobs * self.gamma - total[:, None],
            gold=rows.gold * self.gamma - total,
            mean=rows.mean * self.gamma - total,
            std=rows.std * self.gamma,
        )
