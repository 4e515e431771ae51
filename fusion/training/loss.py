"""The loss of a batch: the terms of all objectives, each a share of its mean over the global batch.

A mean is over the units of the objective's base class (`objectives.base_classes`): positions, pairs of rows, mapped rows, spans
or examples. It is the sum of weight times value in this batch, divided by how many values all micro-batches of the step have
in all processes; one whose weight is 0, or that `select` leaves out, is counted too. So the terms of all micro-batches add up
to the mean. The causal shift is no matter of this file: `data.batching` says which hidden state predicts which token.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.core.finite import broken_weights, row_fault
from fusion.core.rows import LogitRows
from fusion.models.head import Head
from fusion.objectives import BatchTargets, Objective, ObjectiveInputs
from fusion.training.auxiliary_modules import modules_of

Counts = Mapping[str, int] | Mapping[str, float]
"""What `Loss.counts` counts, summed over micro-batches and processes: the denominators of all means."""


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss of a batch."""

    name: str
    """The objective's kind, and the source after a slash where it is compared with one alone."""
    weight: float
    mean: Float[Tensor, ""]
    """This micro-batch's share of the mean over the global batch; the loss is the sum of weight * mean."""
    projected: bool
    """Whether its gradient is to lose what opposes that of the others; see `gradient_projection`."""
    metrics: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """By name, this micro-batch's share of means over the global batch that are logged beside it."""


@dataclass(frozen=True)
class Loss:
    """Objectives on batches of any size. What each needs and gathers is its own matter; see `fusion.objectives`."""

    head: Head
    objectives: Sequence[Objective]
    modules: nn.ModuleDict
    """Modules of the objectives' own, see `auxiliary_modules`."""

    def __call__(
        self, hidden: Float[Tensor, "B T D"], targets: BatchTargets, counts: Counts, step: int = 0
    ) -> list[LossTerm]:
        """Compute every term of a micro-batch from the pivot's hidden states, in the order of the objectives.

        `hidden` are the states that the output layer reads, `counts` the denominators of the whole step, `step` the number of
        optimizer steps before this one. A term that has nothing to average over (no match in the whole batch) is 0.
        """
        # one pass over the logits serves all objectives: each reads what it needs of the same rows
        pivot, query_logprobs = self._pivot_rows(hidden, targets)
        inputs = ObjectiveInputs(
            pivot, query_logprobs, targets, torch.ones(len(pivot), device=hidden.device), step=step
        )
        terms: dict[int, list[LossTerm]] = {}
        # terms of the text may count by what the others leave of a row (`use_remaining_weight`), so they come last, whatever
        # the order of the configuration; the sort is stable, and the result goes back to that order
        for number in sorted(range(len(self.objectives)), key=lambda number: self.objectives[number].after_others):
            objective, terms[number] = self.objectives[number], []
            modules = modules_of(self.modules, number, targets.sources)
            for term in objective.terms(dataclasses.replace(inputs, modules=modules)):
                # divided by the count of the whole step, not of this micro-batch: so micro-batches and processes add up
                mean = term.total / max(1, counts[f"{number}/{term.name}"])
                projected = objective.requirements.projects_gradient
                metrics = {n: m.total / max(1, counts[f"{number}/{m.count}"]) for n, m in term.metrics.items()}
                terms[number].append(LossTerm(term.name, objective.weight, mean, projected, metrics))
                if term.row_weight is not None:
                    remaining = inputs.remaining_weight - objective.weight * term.row_weight
                    inputs = dataclasses.replace(inputs, remaining_weight=remaining)
        return [term for number in sorted(terms) for term in terms[number]]

    def counts(self, targets: BatchTargets) -> dict[str, int]:
        """Count what every mean over this batch divides by: rows, pairs, batches, and the units of each term.

        Counts of several batches add up, name by name. A name begins with the number of the objective, for two of one kind may
        stand side by side. No number depends on the model, so that a whole step is counted before its first forward pass.
        """
        found = targets.counts() | {"batches": 1}
        for number, objective in enumerate(self.objectives):
            found |= {f"{number}/{name}": count for name, count in objective.counts(targets).items()}
        return found

    def _pivot_rows(
        self, hidden: Float[Tensor, "B T D"], targets: BatchTargets
    ) -> tuple[LogitRows, dict[str, Float[Tensor, "N K"]]]:
        """The pivot's rows with all that any objective reads, and its log-probabilities of each source's ids."""
        needs = [objective.requirements for objective in self.objectives]
        tops = [each.pivot_top_k for each in needs]
        # the largest number that any objective asks for; each takes its own part of the entries
        k = self.head.vocabulary if None in tops else max((top for top in tops if top is not None), default=0)
        mapped = any(each.mapped_rows for each in needs)
        moments = any(each.pivot_fields & {"mean", "std"} for each in needs)
        # only states that predict response tokens reach the head: no logits of prompts and padding are ever made
        chosen = hidden.flatten(0, 1)[targets.hidden_index]
        queries = targets.query_ids if mapped else None
        rows, logprobs = self.head.rows(chosen, targets.positions, k, queries, moments)
        if any("hidden" in each.pivot_fields for each in needs):
            rows = dataclasses.replace(rows, hidden=chosen)
        # `query_ids` has the ids of one source after another in its columns: cut them apart again
        widths = [source.mapped.k if mapped else 0 for source in targets.sources.values()]
        return rows, dict(zip(targets.sources, logprobs.split(widths, dim=1), strict=True)) if widths else {}


class StepGuard:
    """Stops a training whose loss or gradients are no numbers, before they reach the weights.

    `note` is called with what is wrong in a micro-batch, in the process that has it; `check` once a step in all processes, with
    the norm of the gradients, which is the same everywhere: so all of them stop at the same step. float16 with a loss scaler
    (`scaled`) skips a step whose gradients overflow and lowers its scale; that is no fault unless it goes on forever.
    """

    MAX_SKIPPED = 30
    """Skipped steps in a row: from 65536 the scale has fallen below 1e-4 by then, and what overflows is not its doing."""

    def __init__(self, *, scaled: bool):
        self.scaled, self.skipped, self.fault = scaled, 0, ""

    def note(self, fault: str) -> None:
        """Keep what is wrong in this micro-batch; the first of a step is told."""
        self.fault = self.fault or fault

    def check(self, norm: Tensor | float | None, step: int) -> None:
        """Raise ValueError, with the step, for a loss that was noted and for gradients that are no numbers."""
        if self.fault:
            raise ValueError(f"Step {step}: {self.fault}")
        value = norm.item() if isinstance(norm, Tensor) else norm
        if value is None or math.isfinite(value):
            self.skipped = 0
        elif not self.scaled:
            raise ValueError(
                f"Step {step}: the norm of the gradients is {value}, and the loss of this process is a finite number. The "
                "weights are as they were before this step. Lower training.learning_rate; if it is the first step, leave out "
                "objectives (weight: 0) one by one to find whose gradient it is."
            )
        else:
            self.skipped += 1
            if self.skipped >= self.MAX_SKIPPED:
                raise ValueError(
                    f"Step {step}: the gradients overflow float16 at this and the {self.skipped - 1} steps before, whatever "
                    "the scale of the loss, so that nothing is learned. Set training.bf16 instead of fp16, or leave out both."
                )


def loss_fault(
    terms: Iterable[LossTerm],
    states: Float[Tensor, "N D"],
    targets: BatchTargets,
    weights: Iterable[tuple[str, Tensor]],
    *,
    scaled: bool = False,
) -> str:
    """Return why the loss of a micro-batch is NaN or infinite: weights, hidden states, or a term, with source and example.

    `states` are the pivot's hidden states at the rows of `targets`. Empty where a loss scaler skips the step: where float16
    overflows in the forward pass of good weights. Slow; called where a training is about to stop.
    """
    if broken := broken_weights(weights):
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        return (
            f"the pivot's weights {broken[0]}{more} became NaN or infinite in the step before. Lower training.learning_rate, "
            "and see that training.adam_epsilon is above 0."
        )
    if len(wrong := (~states.isfinite().all(-1)).nonzero()):
        if scaled:
            return ""
        example = targets.examples[int(targets.positions.example[wrong[0, 0]])].id
        return (
            f"the pivot's hidden states are NaN or infinite in example {example}, though its weights are finite: they have "
            "grown too large. Lower training.learning_rate, or train in float32 (dtype, without training.bf16 and fp16)."
        )
    faults = [_term_fault(term, targets) for term in terms if not bool(term.mean.isfinite())]
    return "; ".join(faults) or "the loss is NaN or infinite, and each of its terms is finite: their sum overflows."


def _term_fault(term: LossTerm, targets: BatchTargets) -> str:
    """What is wrong with a term, and with the rows of the source that it is compared with."""
    begin, name = f"the term {term.name} of the loss is {term.mean.item()}", term.name.rpartition("/")[2]
    sources = {name: targets.sources[name]} if name in targets.sources else targets.sources
    for name, source in sources.items():
        if (fault := row_fault(source.rows.to("cpu"))) is not None:
            return (
                f"{begin}: source {name} in example {targets.examples[fault.example].id}, {fault}, after its transforms. Take "
                "out the transform that does it."
            )
        if len(wrong := (~source.weight.isfinite()).nonzero()):
            row = int(source.pairs.pivot[wrong[0, 0]])
            example, weight = (
                targets.examples[int(targets.positions.example[row])].id,
                source.weight[wrong[0, 0]].item(),
            )
            return f"{begin}: weighting gives source {name} a weight of {weight} in example {example}."
    examples = ", ".join(dict.fromkeys(info.id for info in targets.examples))
    return (
        f"{begin}, though all weights, states and cached rows are finite, in one of the examples {examples}. Where the pivot "
        "masks ids (-inf) that the text or a source names, no loss of them is finite: leave those examples out. Else leave the "
        "objective out (weight: 0)."
    )
