"""How likely whole answers are: sums over the rows of each example, per answer or per unit of its length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.objectives.targets import ObjectiveInputs, PreferenceTargets

Length = Literal["none", "tokens", "bytes"]
"""What the log-probability of an answer is divided by: nothing, the pivot's tokens of it with its end, or its bytes."""


@dataclass(frozen=True)
class AnswerLogprobs:
    """E answers under the pivot by now, and what is known of them. Float32 at least."""

    pivot: Float[Tensor, " E"]
    """Log-probability of each answer and its end in nats, with gradients."""
    tokens: Int[Tensor, " E"]
    """How many tokens of the pivot each takes, its end included."""
    known: PreferenceTargets

    @property
    def reference(self) -> Float[Tensor, " E"]:
        """Log-probability of each answer under the pivot before it learned from preferences."""
        return self.known.reference_logprobs.to(self.pivot.dtype)

    def lengths(self, unit: Length) -> Float[Tensor, " E"]:
        """What the log-probability of each answer is divided by, whoever says it; at least 1."""
        counts = {"none": torch.ones_like(self.tokens), "tokens": self.tokens, "bytes": self.known.num_bytes}[unit]
        return counts.clamp(min=1).to(self.pivot.dtype)


def answer_logprobs(inputs: ObjectiveInputs) -> AnswerLogprobs:
    """Sum the pivot's rows of each answer. Raises ValueError for a batch without pairs, or an answer nobody knows of before."""
    targets = inputs.targets
    if (known := targets.preferences) is None:
        raise ValueError(
            "This batch has no pairs of a right and a wrong answer: `BatchTargets.preferences` is None. Give it, or leave out "
            "objectives that compare such pairs."
        )
    # in bfloat16 a sum over a hundred tokens would be off by a nat
    gold = inputs.pivot.gold.to(torch.promote_types(inputs.pivot.gold.dtype, torch.float32))
    example = inputs.pivot.example
    sums = gold.new_zeros(len(targets.examples)).index_add(0, example, gold)
    refuse_unknown(known.reference_logprobs, inputs, "the pivot before it learned from preferences")
    return AnswerLogprobs(sums, torch.bincount(example, minlength=len(sums)), known)


def refuse_unknown(logprobs: Float[Tensor, " E"], inputs: ObjectiveInputs, who: str) -> None:
    """Raise ValueError where a model gives an answer no finite log-probability."""
    if len(unknown := (~logprobs.isfinite()).nonzero()):
        example, value = inputs.targets.examples[int(unknown[0, 0])].id, logprobs[unknown[0, 0]].item()
        raise ValueError(
            f"{len(unknown)} of {len(logprobs)} answers of this batch have no log-probability under {who}, the first of them "
            f"example {example} ({value}). Let it read the answers with a backend that knows every given token."
        )
