"""What objectives on one source after another have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from fusion.objectives.base import Objective, Term
from fusion.objectives.targets import BatchTargets, ObjectiveInputs, SourceTargets


class SourcewiseObjective(Objective):
    """Compares the pivot with each source alone: one term for each, named `kind/source`."""

    @override
    def counts(self, targets: BatchTargets) -> dict[str, int]:
        return {f"{self.kind}/{name}": self.count(targets, source) for name, source in targets.sources.items()}

    @override
    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        for name, source in inputs.targets.sources.items():
            values, weight, row_weight = self.compare(inputs, name, source)
            values = one_for_each(self, values, weight.numel())
            yield Term(f"{self.kind}/{name}", (weight * values).sum(), row_weight)

    @abstractmethod
    def count(self, targets: BatchTargets, source: SourceTargets) -> int:
        """Count the values against one source in this batch: what its mean divides by."""

    @abstractmethod
    def compare(
        self, inputs: ObjectiveInputs, name: str, source: SourceTargets
    ) -> tuple[Tensor, Tensor, Float[Tensor, " N"] | None]:
        """Gather the formula's arguments and call it: its values, how much each counts, and how much at each pivot row."""

    def extra_arguments(self, inputs: ObjectiveInputs, name: str) -> dict[str, Any]:
        """Keywords for the formula besides rows: a module of the objective's own, say."""
        return {}


def one_for_each(objective: Objective, values: Tensor, count: int) -> Tensor:
    """Return the values of a formula. Raises ValueError where their shape is not [count]: it would be broadcast, and summed."""
    if values.shape != (count,):
        raise ValueError(
            f"The objective {objective.kind} returned a value of shape {list(values.shape)}; it must return one number for "
            f"each of {count}, shape [{count}]: sum or average over the entries of a row."
        )
    return values
