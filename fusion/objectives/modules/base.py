"""Objectives with a module of their own: one for each source, trained with the pivot and left out of what it becomes."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import SourcewiseObjective
from fusion.objectives.targets import ObjectiveInputs


class OutputLayer(NamedTuple):
    """What makes logits of hidden states: weight h + bias. Ids that belong to no token are left out."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None = None


@dataclass(frozen=True)
class ModuleSpec:
    """What a module is built from: the sizes of the pivot and of the source, and what is read of the source on demand."""

    pivot_width: int
    """Width of the pivot's hidden states."""
    source_width: int | None
    """Width of the source's, where its cache keeps them."""
    source_vocabulary: int
    """Tokens of the source."""
    output_layer: Callable[[Literal["source", "cache"]], OutputLayer]
    """Reads the source's output layer (`source`), or recovers its span from the source's cached rows (`cache`). Raises
    ValueError where that is not possible."""
    spelling_distance: Callable[[], nn.Module]
    """Builds the distance of spellings between the pivot's tokens and the source's; see `alignment.SpellingDistance`."""

    @property
    def widths(self) -> tuple[int, int]:
        """The pivot's and the source's. Raises ValueError where the source's is not known."""
        if self.source_width is None:
            raise ValueError(
                "The source's cache keeps no hidden states; extract it again with extract.hidden_states: true."
            )
        return self.pivot_width, self.source_width


class ModuleObjective(SourcewiseObjective):
    """An objective whose formula also takes a module, one for each source."""

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, trains_module=True)

    def check(self, source_vocabulary: int) -> None:
        """Raise ValueError for what can be known to be wrong before a module is built."""

    @abstractmethod
    def build_module(self, spec: ModuleSpec) -> nn.Module:
        """Build a new module. Its parameters are trained; what it holds besides is no part of a checkpoint."""

    @override
    def extra_arguments(self, inputs: ObjectiveInputs, name: str) -> dict[str, Any]:
        return super().extra_arguments(inputs, name) | {"module": inputs.modules.get(name)}


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Build a linear layer that changes nothing at first where both widths are the same, and is random elsewhere."""
    layer = nn.Linear(inputs, outputs, bias)
    if inputs == outputs:
        nn.init.eye_(layer.weight)
        if bias:
            nn.init.zeros_(layer.bias)
    return layer
