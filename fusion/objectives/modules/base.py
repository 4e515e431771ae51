"""Terms with trainable parts of their own: a module for each source, trained with the pivot and left out of what it becomes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from fusion.objectives.base import Objective


class OutputLayer(NamedTuple):
    """What makes logits of hidden states: weight h + bias. Ids that belong to no token are left out."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None = None


@dataclass(frozen=True)
class Between:
    """The pivot and the source that a module is made for."""

    pivot: int
    """Width of the pivot's hidden states."""
    source: int | None
    """Width of the source's, where its cache keeps them."""
    vocabulary: int
    """Tokens of the source."""
    output: Callable[[Literal["source", "cache"]], OutputLayer]
    """The source's output layer: `source` reads it, `cache` recovers its span from the source's cached rows. Raises ValueError
    where that is not possible."""

    @property
    def widths(self) -> tuple[int, int]:
        """Of both. Raises ValueError where the source's is not known."""
        if self.source is None:
            raise ValueError("The source's cache keeps no hidden states; extract it again with extract.hidden: true.")
        return self.pivot, self.source


class OwningObjective(Objective):
    """A term whose call takes a module of its own as well, one for each source."""

    @property
    def reads_output_layer(self) -> bool:
        """Whether the module is made from the source's output layer."""
        return False

    @property
    def reads_cached_head(self) -> bool:
        """Whether it is made from what whole cached rows tell of that layer."""
        return False

    def check(self, vocabulary: int) -> None:
        """Raise ValueError for what can be known to be wrong before a module is made; `vocabulary` is the source's size."""

    @abstractmethod
    def own(self, between: Between) -> nn.Module:
        """A new module. Its parameters are trained; what it holds besides is no part of a checkpoint."""


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer that changes nothing at first where both widths are the same, else at random."""
    layer = nn.Linear(inputs, outputs, bias)
    if inputs == outputs:
        nn.init.eye_(layer.weight)
        if bias:
            nn.init.zeros_(layer.bias)
    return layer
