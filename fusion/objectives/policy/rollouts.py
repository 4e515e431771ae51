"""The rows of a batch that are the pivot's own text, apart from all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows
from fusion.objectives.targets import BatchTargets, ObjectiveInputs, RolloutTargets


@dataclass(frozen=True)
class RolloutRows:
    """M rows of the pivot's own text, and what is known of them. Numbers other than `pivot` are float32 at least."""

    index: Int[Tensor, " M"]
    """Number of each among the N rows of the batch."""
    pivot: LogitRows
    """What the pivot says there by now, with gradients."""
    old_logprobs: Float[Tensor, " M"]
    """What the pivot said that wrote the text: log mu of each token, in nats."""
    text_advantages: Float[Tensor, " M"]
    """At each row the advantage of its text: how much better its reward is than those of the prompt's other texts."""
    reference_logprobs: Float[Tensor, " M"] | None
    """What the pivot before the first round said, where an objective reads it."""

    @property
    def logprobs(self) -> Float[Tensor, " M"]:
        """Log pi of each token, as a constant."""
        return self.pivot.gold.detach().to(self.old_logprobs.dtype)

    @property
    def log_ratio(self) -> Float[Tensor, " M"]:
        """Log pi - log mu of each token, as a constant."""
        return self.logprobs - self.old_logprobs


def is_rollout(info: ExampleInfo) -> bool:
    """Whether the pivot wrote the text of an example."""
    return info.part == "rollouts"


def rollout_rows(inputs: ObjectiveInputs) -> RolloutRows:
    """Select the rows of texts that the pivot wrote; none where the batch has no such text.

    Raises ValueError where one of them is not known under the pivot that wrote it. What other texts have there (NaN) is
    taken out before anything is computed of it.
    """
    targets, gold = inputs.targets, inputs.pivot.gold
    index = targets.is_row_of(is_rollout).nonzero()[:, 0]
    known = targets.rollouts or _nothing_known(targets, index)
    dtype = torch.promote_types(gold.dtype, torch.float32)  # ratios of bfloat16 would be off by a quarter at -40 nats
    old = known.old_logprobs[index].to(dtype)
    _refuse_unknown(old, index, targets, "the pivot that wrote it")
    reference = known.reference_logprobs
    if reference is not None:
        reference = reference[index].to(dtype)
        _refuse_unknown(reference, index, targets, "the pivot before the first round")
    advantages = known.advantages[targets.positions.example[index]].to(dtype)
    return RolloutRows(index, inputs.pivot.select(index), old, advantages, reference)


def _nothing_known(targets: BatchTargets, index: Int[Tensor, " M"]) -> RolloutTargets:
    """What is known in a batch without such texts."""
    if len(index):
        id = targets.examples[int(targets.positions.example[index[0]])].id
        raise ValueError(
            f"Example {id} is a text that the pivot wrote, and `BatchTargets.rollouts` is None: give the log-probabilities of "
            "its tokens when it was written."
        )
    device = index.device
    return RolloutTargets(
        torch.zeros(len(targets.positions), device=device), torch.zeros(len(targets.examples), device=device)
    )


def _refuse_unknown(values: Float[Tensor, " M"], index: Int[Tensor, " M"], targets: BatchTargets, who: str) -> None:
    if len(unknown := values.isnan().nonzero()):
        example = targets.examples[int(targets.positions.example[index[unknown[0, 0]]])].id
        raise ValueError(
            f"{len(unknown)} of {len(index)} tokens of this batch's rollouts, the first in example {example}, have no "
            f"log-probability under {who} (NaN). Let that pivot read the round's texts again."
        )
