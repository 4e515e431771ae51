"""What every objective is: settings, what it reads, and the terms it adds to the loss of a batch.

A newcomer's objective has five members: its `weight`, what it reads (`required_top_k`, `required_source_fields`,
`required_pivot_fields`), and `__call__`, the formula: rows in, one unreduced value for each unit out. It derives from one of
the classes in `base_classes`, which gather the arguments of the formula. An objective of a new kind derives from
`Objective` and writes `counts` and `terms` itself; neither the loss nor the collator knows any kind by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fusion.core.settings import Settings
from fusion.objectives.targets import BatchTargets, ObjectiveInputs


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """All that an objective reads; what a cache or a configuration lacks is refused before anything is trained."""

    source_top_k: int | None = 0
    """Largest entries that each row of a source must keep: 0 for none, None for the whole vocabulary."""
    pivot_top_k: int | None = 0
    """The same of the pivot's rows, which are computed in training."""
    source_fields: frozenset[str] = frozenset()
    """Fields of a source's rows, besides entries, that must be known: of gold, mean, std and hidden."""
    pivot_fields: frozenset[str] = frozenset()
    """The same of the pivot's rows."""
    sources: bool = True
    """Whether sources are read at all."""
    mapped_rows: bool = False
    """Whether a source's rows are read in the pivot's vocabulary, and the pivot is asked for the ids that they name."""
    aligned_spans: bool = False
    """Whether the text between boundaries that both models share is read, which byte alignment alone gives."""
    other_answers: bool = False
    """Whether a source's rows of another answer to the same prompt are read."""
    source_names: frozenset[str] = frozenset()
    """Sources that the objective names and cannot do without."""
    exact_entries: bool = True
    """Whether a source's entries must be its largest. False where entries drawn at random do as well: where the value is linear
    in the source's probabilities, or entries are not read."""
    logit_scale: bool = True
    """Whether a positive factor on a source's logits changes anything."""
    whole_batch: bool = False
    """Whether a value depends on other examples of the micro-batch, whose size then is part of the method."""
    output_layer: Literal["source", "cache"] | None = None
    """Where a source's output layer is taken from, if it is read: its weights, or what whole cached rows tell of it."""
    trains_module: bool = False
    """Whether a module is trained beside the pivot, one for each source."""
    projects_gradient: bool = False
    """Whether its gradient is to lose what opposes that of the other terms; see `training.gradient_projection`."""
    rollouts: bool = False
    """Whether it is about texts that the pivot wrote itself (`BatchTargets.rollouts`), which only rounds have."""
    reference_pivot: bool = False
    """Whether the pivot before the first round is to read these texts too."""
    preferences: bool = False
    """Whether it compares right and wrong answers to one prompt (`BatchTargets.preferences`), which only preferences have."""
    own_answers: bool = False
    """Whether both answers of a pair are to be the pivot's own, beside a right one of a source."""
    extras: frozenset[str] = frozenset()
    """Extras of the package that it needs: `gw` for pip install 'logit-fusion[gw]'."""
    files: tuple[Path, ...] = ()
    """Files that settings name, whose contents are part of what was trained."""


@dataclass(frozen=True)
class LoggedMean:
    """A number for the log alone, averaged over the whole step as a term's values are."""

    total: Float[Tensor, ""]
    """Sum over the batch, without gradient."""
    count: str
    """Name of the count that its sum over the step is divided by; a key of `Objective.counts`."""


@dataclass(frozen=True)
class Term:
    """What an objective adds to the loss of a batch, against one source or on its own."""

    name: str
    """As logged: the objective's kind and, after a slash, the source; a key of `Objective.counts`."""
    total: Float[Tensor, ""]
    """Sum of the values over the batch, each times the weight of its pair or row (not yet the objective's own `weight`)."""
    row_weight: Float[Tensor, " N"] | None = None
    """How much the term counts at each of the pivot's rows; None where it is about no single rows."""
    metrics: Mapping[str, LoggedMean] = field(default_factory=dict)
    """What is logged beside its mean, by name. The names are the same in every batch, whatever is in it."""


class Objective(Settings, ABC):
    """A term of the loss: it gives sums over a batch, and what they are averaged over.

    `training.loss` divides the sums by counts over the global batch, and the trainer adds up the means, times `weight`. Derive
    from a class of `base_classes` to write a formula alone, from this one for a new kind of comparison.
    """

    if TYPE_CHECKING:
        kind: Any
    after_others: ClassVar[bool] = False
    """Whether it is computed when all others have said how much they count at each row (`inputs.remaining_weight`)."""
    weight: float = Field(default=1.0, ge=0)
    """Factor of this term's mean in the total; with 0 it is not computed."""

    @property
    @abstractmethod
    def required_top_k(self) -> int | None:
        """How many of its largest entries each row must keep: 0 for none, None for the whole vocabulary."""

    @property
    def required_source_fields(self) -> frozenset[str]:
        """Fields of a source's rows, besides entries, that must be known: of gold, mean, std and hidden."""
        return frozenset()

    @property
    def required_pivot_fields(self) -> frozenset[str]:
        """Fields of the pivot's rows that must be known; the same as of a source's, unless a subclass says otherwise."""
        return self.required_source_fields

    @property
    def requirements(self) -> Requirements:
        """All that is read. Objectives with rarer needs extend it: `dataclasses.replace(super().requirements, ...)`."""
        return Requirements(
            source_top_k=self.required_top_k,
            pivot_top_k=self.required_top_k,
            source_fields=self.required_source_fields,
            pivot_fields=self.required_pivot_fields,
        )

    @abstractmethod
    def counts(self, targets: BatchTargets) -> Mapping[str, int]:
        """Count the values of each term in a batch, by `Term.name`: summed over the global batch they divide the totals.

        `{"forward_kl/coder": 120}`, say. All values count, also those of weight 0, so that the mean does not depend on weights.
        What `Term.metrics` divide by is counted here too, by a name of its own.
        """

    @abstractmethod
    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        """Compute the terms of a micro-batch.

        Sums, not means: only the whole step knows what to divide by. Gradients flow to the pivot (and a module of the
        objective's own), never to a source.
        """
