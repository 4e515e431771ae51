"""The pivot against itself before: what preferences teach without a source's numbers."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.objectives.base import Requirements
from fusion.objectives.preference.answers import AnswerLogprobs
from fusion.objectives.preference.base import PreferenceObjective
from fusion.objectives.targets import ObjectiveInputs


class DPO(PreferenceObjective):
    """Each answer is measured from the pivot as it was before: margin = log pi/pi_0 (right) - log pi/pi_0 (wrong).

    Source: Rafailov et al. 2023, arXiv:2305.18290, equation 7; `label_smoothing` as Mitchell's conservative DPO. With
    `length: tokens` the length-normalised DPO of FuseChat-3.0, arXiv:2503.04222 (beta 10 there): TRL's `sigmoid` and
    `sigmoid_norm`.
    """

    kind: Literal["dpo"] = "dpo"

    @override
    def rewards(self, answers: AnswerLogprobs) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
        moved = (answers.pivot - answers.reference) / answers.lengths(self.length)
        return moved[answers.known.chosen], moved[answers.known.rejected]


class WRPO(PreferenceObjective):
    """DPO on two answers of the pivot's own, the right one of which shares its place with a right answer of a source.

    The reward of the right side is alpha r(source's) + (1 - alpha) r(own), r = log pi/pi_0. So the pivot is led to the source's
    answer without leaving its own at once, as alpha grows from 0 over the first steps.

    Source: Yang et al. 2024, arXiv:2412.03187: alpha grows linearly to 0.1, beta 0.01. Over how many steps is yours to say,
    where the paper takes the whole training.
    """

    kind: Literal["wrpo"] = "wrpo"
    beta: float = Field(default=0.01, gt=0)
    """Factor of the margin."""
    alpha: float = Field(default=0.1, ge=0, le=1)
    """Share of the source's answer in the reward of the right side, once it has grown to this."""
    alpha_steps: int = Field(default=0, ge=0)
    """Steps of the optimizer over which alpha grows from 0; with 0 it is there from the first."""

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, own_answers=True)

    @override
    def check_answers(self, inputs: ObjectiveInputs) -> None:
        preferences = inputs.targets.preferences
        if preferences is not None and preferences.source_chosen is None:
            raise ValueError(
                "wrpo compares three answers to a prompt, and this batch has no right one of a source: "
                "`PreferenceTargets.source_chosen` is None. Give it, or use dpo."
            )

    @override
    def at_step(self, step: int) -> WRPO:
        """The same with alpha as it is after so many steps."""
        grown = min(1.0, step / self.alpha_steps) if self.alpha_steps else 1.0
        return self.model_copy(update={"alpha": self.alpha * grown})

    @override
    def rewards(self, answers: AnswerLogprobs) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
        known, moved = answers.known, (answers.pivot - answers.reference) / answers.lengths(self.length)
        assert known.source_chosen is not None
        right = self.alpha * moved[known.source_chosen] + (1 - self.alpha) * moved[known.chosen]
        return right, moved[known.rejected]
