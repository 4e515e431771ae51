"""Sources in the reference's place: how likely the models to learn from find a whole answer."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from fusion.objectives.base import Requirements
from fusion.objectives.preference.answers import AnswerLogprobs, Length, refuse_unknown
from fusion.objectives.preference.base import PreferenceObjective
from fusion.objectives.targets import ObjectiveInputs


class InfiFPO(PreferenceObjective):
    """DPO whose reference is the fused sources: margin = log pi/p (right) - log pi/p (wrong), all per unit of length.

    p is, for each answer, what the one source says that differs most from the pivot before training (`max_margin`), or the mean
    of all log-probabilities. No source counts a right answer as less likely than that pivot did, nor a wrong one as likelier
    (`clip`): what it knows less of teaches nothing. Sources whose tokens differ teach the same if they find an answer as
    likely.

    Source: Gu et al. 2025, arXiv:2505.13878, equations 9 to 13, beta 2.5. Two things differ here. There each log-probability is
    divided by the tokens of the model that says it (`source_length: own_tokens`), which makes one with longer tokens seem less
    sure; here all by those of the pivot. There a source is to differ from the pivot as it is by now, in probability; here from
    the pivot before training, in log-probability, as in the weighting `max_margin`.
    """

    kind: Literal["infifpo"] = "infifpo"
    beta: float = Field(default=2.5, gt=0)
    """Factor of the margin."""
    length: Length = "tokens"
    """What log-probabilities of answers are divided by: none, the pivot's tokens or bytes."""
    source_length: Literal["same", "own_tokens"] = "same"
    """What those of a source are divided by: the same, or its own tokens (the paper's, with length: tokens)."""
    fusion: Literal["max_margin", "mean"] = "max_margin"
    """Which source speaks for all."""
    clip: bool = True
    """Take a source at least at the pivot's word for right answers, and at most for wrong ones."""

    @model_validator(mode="after")
    def _own_tokens_are_tokens(self) -> InfiFPO:
        if self.source_length == "own_tokens" and self.length != "tokens":
            raise ValueError(
                f"source_length own_tokens divides what sources say by their tokens, and length is {self.length}; set length "
                "to tokens, or source_length to same"
            )
        return self

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @property
    @override
    def required_pivot_fields(self) -> frozenset[str]:
        return frozenset()

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, sources=True)

    @override
    def check_answers(self, inputs: ObjectiveInputs) -> None:
        known = inputs.targets.preferences
        if known is None or not known.source_logprobs:
            raise ValueError(
                "infifpo measures the pivot from its sources, and what they say of the answers is not known: "
                "`PreferenceTargets.source_logprobs` is empty. Let a source read them, or use dpo."
            )
        for name, logprobs in known.source_logprobs.items():
            refuse_unknown(logprobs, inputs, f"source {name}")

    @override
    def rewards(self, answers: AnswerLogprobs) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
        by, known = answers.lengths(self.length), answers.known
        pivot, before, sources = answers.pivot / by, answers.reference / by, self._sources(answers, by)
        found = []
        for index, is_chosen in ((known.chosen, True), (known.rejected, False)):
            fused = self._fused(sources[:, index], before[index], is_chosen=is_chosen)
            found.append(pivot[index] - fused)
        return found[0], found[1]

    def _sources(self, answers: AnswerLogprobs, by: Float[Tensor, " E"]) -> Float[Tensor, "S E"]:
        """What each source says of each answer, per unit of length."""
        known = answers.known
        if self.source_length == "same":
            return torch.stack([each.to(by.dtype) / by for each in known.source_logprobs.values()])
        return torch.stack(
            [each.to(by.dtype) / known.source_tokens[n].clamp(min=1) for n, each in known.source_logprobs.items()]
        )

    def _fused(
        self, sources: Float[Tensor, "S P"], before: Float[Tensor, " P"], *, is_chosen: bool
    ) -> Float[Tensor, " P"]:
        """The one number that stands for all sources, of the right answers or of the wrong ones."""
        if self.clip:
            sources = sources.maximum(before) if is_chosen else sources.minimum(before)
        if self.fusion == "mean":
            return sources.mean(0)
        return sources.gather(0, (sources - before).abs().argmax(0, keepdim=True))[0]
