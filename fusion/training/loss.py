"""The loss of a batch: the terms of all objectives, each a share of its mean over the global batch.

A mean is over the units of the objective's base class (`objectives.base_classes`): positions, pairs of rows, mapped rows, spans
or examples. It is the sum of weight times value in this batch, divided by how many values all micro-batches of the step have
in all processes; one whose weight is 0, or that `select` leaves out, is counted too. So the terms of all micro-batches add up
to the mean. The causal shift is no matter of this file: `data.batching` says which hidden state predicts which token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
        """Compute every term of a batch from the pivot's hidden states, in the order of the objectives.

        A term that has nothing to average over (no match in the whole batch) is 0.
        """
        pivot, query_logprobs = self._pivot_rows(hidden, targets)
        inputs = ObjectiveInputs(
            pivot, query_logprobs, targets, torch.ones(len(pivot), device=hidden.device), step=step
        )
        terms: dict[int, list[LossTerm]] = {}
        # what the other objectives leave of a row is known once they are computed; a stable sort keeps their order
        for number in sorted(range(len(self.objectives)), key=lambda number: self.objectives[number].after_others):
            objective, terms[number] = self.objectives[number], []
            modules = modules_of(self.modules, number, targets.sources)
            for term in objective.terms(dataclasses.replace(inputs, modules=modules)):
                mean = term.total / max(1, counts[f"{number}/{term.name}"])
                projected = objective.requirements.projects_gradient
                terms[number].append(LossTerm(term.name, objective.weight, mean, projected))
                if term.row_weight is not None:
                    remaining = inputs.remaining_weight - objective.weight * term.row_weight
                    inputs = dataclasses.replace(inputs, remaining_weight=remaining)
        return [term for number in sorted(terms) for term in terms[number]]

    def counts(self, targets: BatchTargets) -> dict[str, int]:
        """Count what every mean over this batch divides by; counts of several batches add up."""
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
        k = self.head.vocabulary if None in tops else max((top for top in tops if top is not None), default=0)
        mapped = any(each.mapped_rows for each in needs)
        moments = any(each.pivot_fields & {"mean", "std"} for each in needs)
        chosen = hidden.flatten(0, 1)[targets.hidden_index]
        queries = targets.query_ids if mapped else None
        rows, logprobs = self.head.rows(chosen, targets.positions, k, queries, moments)
        if any("hidden" in each.pivot_fields for each in needs):
            rows = dataclasses.replace(rows, hidden=chosen)
        widths = [source.mapped.k if mapped else 0 for source in targets.sources.values()]
        return rows, dict(zip(targets.sources, logprobs.split(widths, dim=1), strict=True)) if widths else {}
