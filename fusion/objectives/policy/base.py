"""The step that all policy objectives share; they differ in the advantage that they give to a token."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.objectives.base import LoggedMean, Objective, Requirements, Term
from fusion.objectives.policy.ratio import importance_ratio, is_clipped, kl_from_old, kl_from_reference
from fusion.objectives.policy.rollouts import RolloutRows, is_rollout, rollout_rows
from fusion.objectives.targets import BatchTargets, ObjectiveInputs


@dataclass(frozen=True)
class Advantages:
    """What one term says of each of the M rows: constants, without gradient."""

    values: Float[Tensor, " M"]
    """How much likelier each token should become; negative for less likely."""
    weight: Float[Tensor, " M"] | None = None
    """How much each counts, 0 where the term says nothing; None for 1 everywhere."""
    metrics: Mapping[str, LoggedMean] = field(default_factory=dict)
    """What is logged of it."""

    def weighted(self, anchor: Tensor | float) -> Float[Tensor, " M"]:
        """weight (A - anchor)."""
        values = self.values - anchor
        return values if self.weight is None else self.weight * values


class PolicyObjective(Objective):
    """Makes tokens that the pivot drew likelier or less likely: -rho A log pi(y_t) at each row of rollouts.

    pi is the pivot that is trained, mu the one that wrote the text, y_t the token that it drew. rho = min(pi / mu, 1 +
    epsilon_high) and A are constants in the gradient, which therefore is -rho A grad log pi(y_t): below the bound that of
    -A pi / mu, the surrogate of PPO. rho is 0 where a step would lead a token further out of [1 - epsilon, 1 +
    epsilon_high], as PPO clips. Unlike PPO's, a token far above the upper bound that is to become less likely keeps the
    factor 1 + epsilon_high, where PPO has its whole ratio. With several terms (one for each source) A is the sum of
    weight times advantage over all of them, whose sign decides what is clipped.

    The value is no loss to be watched: where mu = pi it says nothing about how well the pivot does. The mean is over tokens of
    the whole step, so that neither short nor long texts are favoured (1/|y| favours short right and long wrong answers).

    Source: Schulman et al. 2017, arXiv:1707.06347, equations 6 and 7; the truncated, detached ratio as TRL's loss_type cispo.
    """

    epsilon: float = Field(default=0.5, ge=0, le=1)
    """Lower bound of pi / mu is 1 less this. TRL's name."""
    epsilon_high: float = Field(default=1.0, ge=0)
    """Upper bound of pi / mu is 1 more than this. TRL's name."""
    beta: float = Field(default=0.0, ge=0)
    """How strongly the pivot is held to what it was before the first round: this times log pi - log pi_0 is taken off each
    advantage. TRL's name for the coefficient of that KL."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return 0

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(
            super().requirements, sources=False, exact_entries=False, rollouts=True, reference_pivot=self.beta > 0
        )

    @override
    def counts(self, targets: BatchTargets) -> Mapping[str, int]:
        return {self.kind: int(targets.is_row_of(is_rollout).sum())}

    @abstractmethod
    def advantages(self, inputs: ObjectiveInputs, rollouts: RolloutRows) -> Mapping[str, Advantages]:
        """Compute the advantages of each term, by `Term.name`."""

    def __call__(self, rollouts: RolloutRows, advantages: Mapping[str, Advantages]) -> dict[str, Float[Tensor, " M"]]:
        """Compute one value for each row of rollouts and each term; of its terms' sums the gradient is taken."""
        ratio, clipped, anchor = self._step(rollouts, advantages)
        rho = ratio.clamp(max=1 + self.epsilon_high).masked_fill(clipped, 0)
        gold = rollouts.pivot.gold
        return {name: -(rho * each.weighted(anchor)).to(gold.dtype) * gold for name, each in advantages.items()}

    @override
    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        rollouts = rollout_rows(inputs)
        advantages = self.advantages(inputs, rollouts)
        values, metrics = self(rollouts, advantages), self._metrics(rollouts, advantages)
        for name, each in advantages.items():
            row_weight = None
            if each.weight is not None:
                row_weight = each.weight.new_zeros(len(inputs.pivot)).index_copy(0, rollouts.index, each.weight)
            yield Term(name, values[name].sum(), row_weight, {**metrics, **each.metrics})
            metrics = {}  # they are about all terms: logged with the first

    def _step(
        self, rollouts: RolloutRows, advantages: Mapping[str, Advantages]
    ) -> tuple[Float[Tensor, " M"], Tensor, Tensor | float]:
        """pi / mu of each row, whether it is clipped, and what the anchor takes off every advantage."""
        anchor: Tensor | float = 0.0
        if self.beta:
            if rollouts.reference_logprobs is None:
                raise ValueError(
                    f"{self.kind}.beta is {self.beta:g}, and what the pivot said before the first round is not known "
                    "(`RolloutTargets.reference_logprobs` is None). Give it, or set beta to 0."
                )
            anchor = self.beta * (rollouts.logprobs - rollouts.reference_logprobs)
        ratio = importance_ratio(rollouts.log_ratio)
        total = sum((each.weighted(anchor) for each in advantages.values()), torch.zeros_like(ratio))
        return ratio, is_clipped(ratio, total, self.epsilon, self.epsilon_high), anchor

    @torch.no_grad()
    def _metrics(self, rollouts: RolloutRows, advantages: Mapping[str, Advantages]) -> dict[str, LoggedMean]:
        """Means over all tokens of rollouts: of pi / mu, of those clipped, of KL(pi ‖ mu) and KL(pi ‖ pi_0)."""
        ratio, clipped, _ = self._step(rollouts, advantages)
        found = {"ratio": ratio, "clip_ratio": clipped.to(ratio.dtype), "kl_old": kl_from_old(rollouts.log_ratio)}
        if rollouts.reference_logprobs is not None:
            found["kl"] = kl_from_reference(rollouts.log_ratio, rollouts.logprobs, rollouts.reference_logprobs)
        return {f"{self.kind}/{name}": LoggedMean(each.sum(), self.kind) for name, each in found.items()}


class RolloutObjective(PolicyObjective):
    """A policy objective that asks no source: the advantages of its one term come from the rollouts alone. Unit: a row."""

    @override
    def advantages(self, inputs: ObjectiveInputs, rollouts: RolloutRows) -> Mapping[str, Advantages]:
        return {self.kind: Advantages(self.compute_advantages(rollouts))}

    @abstractmethod
    def compute_advantages(self, rollouts: RolloutRows) -> Float[Tensor, " M"]:
        """Compute how much likelier each token should become, as a constant."""
