"""The loss of a batch from logits: what a training loop of one's own adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.api.given import AnyObjectives, count_of, objectives_of
from fusion.models.head import Head
from fusion.objectives import BatchTargets, Objective
from fusion.training.loss import Counts, Loss, LossTerm


@dataclass(frozen=True)
class LossOutput:
    """The loss of a batch, and what it is made of."""

    loss: Float[Tensor, ""]
    """Sum over the terms of weight times mean, with gradients."""
    terms: dict[str, Float[Tensor, ""]]
    """The mean of each term by its name, such as `forward_kl/coder`, without its weight."""


class FusionLoss:
    """Compares a pivot's logits with the rows of its sources, by one or several objectives.

        loss = fusion.FusionLoss([fusion.objectives.ForwardKL(weight=0.5)], vocabulary=len(tokenizer))
        batch = collator([0, 1, 2, 3])
        targets = batch.pop("targets")
        output = loss(model(**batch).logits, targets)
        output.loss.backward()

    `output.terms` has the mean of each term. Cross-entropy is an objective like any other: add it, or the model's own loss.
    """

    def __init__(self, objectives: AnyObjectives, vocabulary: int, *, check_finite: bool = True):
        """Take what is compared.

        Args:
            objectives: Terms of the loss, as objects or as in a configuration, `{"kind": "forward_kl"}`; one whose `weight` is
                0 is not computed.
            vocabulary: Number of tokens of the pivot's tokenizer, `len(tokenizer)`: logits beyond it (padded heads) do not
                count.
            check_finite: Raise ValueError, with the term, where a loss is NaN or infinite, before it reaches the weights; on a
                GPU this waits for each loss.

        Raises:
            ValueError: For what is no objective, and for one that needs more than logits: hidden states, a module that is
                trained beside the pivot, projected gradients, another answer to the same prompt or texts that the pivot wrote.
                `fusion.run` has these.
        """
        size = count_of(vocabulary, "vocabulary", ", len(tokenizer) of the pivot")
        if not (terms := objectives_of(objectives)):
            raise ValueError("objectives is empty, so that there is no loss; give one or more.")
        self._loss, self.check_finite = loss_of_logits(terms, Head(nn.Identity(), size)), check_finite

    def __call__(
        self, logits: Float[Tensor, "B T V"], targets: BatchTargets, counts: Counts | None = None, step: int = 0
    ) -> LossOutput:
        """Compute the loss of a batch, in nats.

        Args:
            logits: The pivot's, of every position of the batch that `targets` belong to; not shifted.
            targets: `batch["targets"]` of a `FusionCollator`.
            counts: What means are divided by: the sum of `self.counts` of all micro-batches of a step, so that their losses add
                up to that of the whole. Those of this batch, if not said.
            step: Steps of the optimizer before this one, for objectives that change in time.

        Returns:
            The loss with gradients, in float32, and the mean of each term without.

        Raises:
            ValueError: Where the logits are not those of the batch that `targets` belong to.
        """
        self._refuse_other_shape(logits, targets)
        targets = targets.to(logits.device)
        terms = self._loss(logits, targets, counts or self.counts(targets), step)
        total = torch.zeros(
            (), dtype=torch.float32, device=logits.device
        )  # a sum in bfloat16 would drop the small terms
        for term in terms:
            total = total + term.weight * term.mean
        if self.check_finite and not bool(total.detach().isfinite()):
            raise ValueError(fault_of(terms))
        return LossOutput(total, {term.name: term.mean.detach() for term in terms})

    def _refuse_other_shape(self, logits: Tensor, targets: BatchTargets) -> None:
        vocabulary = self._loss.head.vocabulary
        if targets.shape is not None and tuple(logits.shape[:2]) != targets.shape:
            raise ValueError(
                f"logits have the shape {tuple(logits.shape)}, and targets are those of a batch of {targets.shape[0]} lines of "
                f"{targets.shape[1]} tokens. Give the logits of every position of this batch, neither cut nor shifted."
            )
        if logits.shape[-1] < vocabulary:
            raise ValueError(
                f"logits are over {logits.shape[-1]:,} tokens, and vocabulary is {vocabulary:,}. Set it to len(tokenizer) of "
                "the pivot."
            )

    def counts(self, targets: BatchTargets) -> dict[str, int]:
        """Count what the means over this batch divide by; counts of several batches add up, name by name."""
        return self._loss.counts(targets)


def fault_of(terms: Sequence[LossTerm]) -> str:
    """Return which terms of a loss are no finite numbers, and what to look at."""
    wrong = [f"{term.name} is {term.mean.item()}" for term in terms if not bool(term.mean.isfinite())]
    return (
        f"The loss is no finite number: {', '.join(wrong) or 'its terms overflow together'}. Is an empty entry (id -1, or a "
        "log-probability of -inf) not masked in an objective of your own, or has the learning rate made the weights too large?"
    )


def loss_of_logits(objectives: Sequence[Objective], head: Head) -> Loss:
    """Build the loss of objectives that compare logits and no more. Raises ValueError for another, by its kind."""
    for objective in objectives:
        if needs := _beyond_logits(objective):
            raise ValueError(
                f"The objective {objective.kind} needs {needs}, and here are logits only. Train it with fusion.run, or "
                "choose one that compares logits, such as ForwardKL."
            )
    return Loss(head, [objective for objective in objectives if objective.weight], nn.ModuleDict())


def _beyond_logits(objective: Objective) -> str:
    """What an objective needs besides the pivot's logits and the rows of a cache; empty where it is nothing."""
    needs = objective.requirements
    if "hidden" in needs.pivot_fields | needs.source_fields:
        return "hidden states"
    if needs.trains_module:
        return "a module that is trained beside the pivot"
    if needs.output_layer:
        return "the source's output layer"
    if needs.rollouts:
        return "texts that the pivot wrote itself"
    if needs.projects_gradient:
        return "projected gradients"
    return "other answers to the same prompt" if needs.other_answers else ""
