"""The loss that all preference objectives share; they differ in the margin by which a right answer is ahead of a wrong one."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import override

from fusion.objectives.base import LoggedMean, Objective, Requirements, Term
from fusion.objectives.preference.answers import AnswerLogprobs, Length, answer_logprobs
from fusion.objectives.targets import BatchTargets, ObjectiveInputs


class PreferenceObjective(Objective):
    """Makes a right answer likelier than a wrong one: -log sigmoid(beta * margin) for each pair. Unit: a pair.

    The margin says how much further than the wrong answer the right one has moved, each from where a reference has it.
    """

    beta: float = Field(default=0.1, gt=0)
    """Factor of the margin. The larger, the sooner a pair counts as learned, and the less the pivot moves."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of pairs that are taken to be the wrong way round. TRL's name."""
    length: Length = "none"
    """What log-probabilities of answers are divided by, so that long and short ones count alike: none, the pivot's tokens or
    bytes. Per token a beta of about 10 does what 0.1 does without, and per byte a larger one still."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return 0

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, sources=False, exact_entries=False, preferences=True)

    @override
    def counts(self, targets: BatchTargets) -> Mapping[str, int]:
        return {self.kind: 0 if targets.preferences is None else len(targets.preferences.chosen)}

    @abstractmethod
    def rewards(self, answers: AnswerLogprobs) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
        """Say how far the right and the wrong answer of each pair have moved, by unit of length; the margin is between them."""

    def at_step(self, step: int) -> PreferenceObjective:
        """The objective as it is after so many steps of the optimizer; unless a subclass says otherwise always the same."""
        return self

    def check_answers(self, inputs: ObjectiveInputs) -> None:
        """Raise ValueError where something that `rewards` reads of the answers is not known."""

    def __call__(self, answers: AnswerLogprobs) -> Float[Tensor, " P"]:
        """Compute one value for each pair, in nats: never negative, log 2 where the margin is 0."""
        chosen, rejected = self.rewards(answers)
        return self._values(self.beta * (chosen - rejected))

    @override
    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        answers = answer_logprobs(inputs)
        self.check_answers(inputs)
        chosen, rejected = (self.beta * each for each in self.at_step(inputs.step).rewards(answers))
        yield Term(self.kind, self._values(chosen - rejected).sum(), None, self._metrics(chosen, rejected))

    def _values(self, logits: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        smoothed = self.label_smoothing
        return -(1 - smoothed) * logsigmoid(logits) - smoothed * logsigmoid(-logits)

    @torch.no_grad()
    def _metrics(self, chosen: Float[Tensor, " P"], rejected: Float[Tensor, " P"]) -> dict[str, LoggedMean]:
        """Means over pairs: of both rewards, of the margin, and the share of pairs in which it is positive. TRL's names."""
        ahead = (chosen > rejected).to(chosen.dtype)
        found = {"chosen": chosen, "rejected": rejected, "margins": chosen - rejected, "accuracies": ahead}
        return {f"{self.kind}/{name}": LoggedMean(each.sum(), self.kind) for name, each in found.items()}
