"""What every objective promises: one unreduced value for each unit it compares."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fusion.core.rows import LogitRows
from fusion.core.settings import Settings
from fusion.objectives.selection import Selection

MISSING = 1e-3  # kept mass may fall this far below 1 by rounding; less of it means that entries are missing
EPS = 1e-7  # a row of equal logits has no spread to divide by; its entries count as 0

Term = TypeVar("Term", bound="Objective")
Unit = Literal["row", "pair", "spelled", "mapped", "sources", "span", "relation", "example"]


class Objective(Settings, ABC):
    """A term of the loss.

    It is called with rows and returns one value for each unit, in the pivot's dtype, with gradients for the pivot only.
    Averaging (over the global batch), weighting and masking happen in `train/`, so that neither the number of
    micro-batches nor the number of processes changes the loss. `unit` says what a value belongs to, and so what the
    call takes; there is one base class for each.
    """

    unit: ClassVar[Unit]
    later: ClassVar[frozenset[str]] = frozenset()
    """Settings that an earlier version did not have; it did what they do by default."""
    looks_across: ClassVar[bool] = False
    """Whether a value depends on the other examples of the micro-batch, whose size then is part of the method."""
    weight: float = Field(default=1.0, ge=0)
    """Share of this term in the total."""

    @property
    @abstractmethod
    def entries(self) -> int | None:
        """How many of its largest entries each row must keep: 0 for none, None for the whole vocabulary."""

    @property
    def needs(self) -> frozenset[str]:
        """Fields of a source's rows, besides entries, that must be known: of gold, mean, std and hidden."""
        return frozenset()

    @property
    def accepts_sampled(self) -> bool:
        """Whether a source's entries may be drawn at random: only where the value is linear in its probabilities."""
        return False

    @property
    def reads(self) -> frozenset[str]:
        """The same of the pivot's rows: as of a source's, unless said otherwise."""
        return self.needs

    @property
    def named(self) -> frozenset[str]:
        """Names of sources that this term cannot do without."""
        return frozenset()

    @property
    def reads_other_answers(self) -> bool:
        """Whether it also looks at a source's rows of another answer to the same prompt."""
        return False

    def identity(self) -> dict[str, Any]:
        """All that makes the term what it is: its settings, and the contents of files that they name.

        Of `later` settings that stand at their default nothing is said: trainings made before them stay what they are.
        """
        fields = type(self).model_fields
        return self.model_dump(exclude={name for name in self.later if getattr(self, name) == fields[name].default})

    @property
    def yields(self) -> bool:
        """Whether its gradient is to lose what opposes that of the other terms, before both are added."""
        return False

    def at_step(self: Term, step: int) -> Term:
        """The term at a step of the optimizer: itself, unless it draws at random."""
        return self


class JoinedObjective(Objective):
    """Compares joined rows, of which some may be left out."""

    select: Selection | None = None
    """Which rows count; all if not said."""


class RowObjective(Objective):
    """Looks at each of the pivot's rows alone."""

    unit: ClassVar[Unit] = "row"
    later: ClassVar[frozenset[str]] = frozenset({"rest"})
    rest: bool = False
    """Count each row by what the other terms leave of it: 1 less the sum of their weights there, those of sources and selection
    included, and at least 0. So rows that no source is heard at are learned from the text in full."""

    @property
    def accepts_sampled(self) -> bool:
        """It looks at no source."""
        return True

    @abstractmethod
    def __call__(self, pivot: LogitRows) -> Float[Tensor, " N"]:
        """One value for each row."""


class PairObjective(JoinedObjective):
    """Compares joined rows: row m of one belongs to row m of the other. Each has its own entries, largest first."""

    unit: ClassVar[Unit] = "pair"

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """One value for each pair."""


class SpelledObjective(JoinedObjective):
    """Compares joined rows, and knows how unlike their tokens are spelled. Each side has its own entries, largest first."""

    unit: ClassVar[Unit] = "spelled"
    candidates: int
    """How many of its largest entries the pivot must keep, or all of a smaller vocabulary; `entries` are the source's."""

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows, distance: Float[Tensor, "M K L"]) -> Float[Tensor, " M"]:
        """One value for each pair. `distance`: between each of the source's K and each of the pivot's L entries, 0 to 1."""


class MappedObjective(JoinedObjective):
    """Compares joined rows entry by entry: both are about the same ids, in the pivot's vocabulary.

    An id of -1, or a source's log-probability of -inf, is an empty entry, whatever the pivot has there. The source's `gold`
    is what it gives to the *pivot's* following token, NaN where that is not known.
    """

    unit: ClassVar[Unit] = "mapped"

    @property
    def entries(self) -> int | None:
        """None of the pivot's own largest: it is asked for the source's ids instead."""
        return 0

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """One value for each pair."""


class SourcesObjective(Objective):
    """Compares each row of the pivot with all sources at once.

    Every source has M rows, in the pivot's ids, empty where it has nothing to say; `share` is how much each counts there,
    0 in such a row and 1 in sum over the sources. The pivot is about the ids of all sources, one source's after another's.
    """

    unit: ClassVar[Unit] = "sources"

    @property
    def entries(self) -> int | None:
        """None of the pivot's own largest: it is asked for the sources' ids instead."""
        return 0

    @abstractmethod
    def __call__(
        self, pivot: LogitRows, sources: Mapping[str, LogitRows], share: Float[Tensor, "S M"]
    ) -> Float[Tensor, " M"]:
        """One value for each row."""


class SpanObjective(Objective):
    """Compares stretches of text from one boundary that both models share to the next, however many tokens each needs."""

    unit: ClassVar[Unit] = "span"

    @property
    def accepts_sampled(self) -> bool:
        """The log-probabilities of the text are exact."""
        return True

    @property
    def entries(self) -> int | None:
        """None: the log-probabilities of the text are all it reads."""
        return 0

    @property
    def needs(self) -> frozenset[str]:
        """The likelihood of the text."""
        return frozenset({"gold"})

    @abstractmethod
    def __call__(self, pivot: Float[Tensor, " M"], source: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
        """One value for each stretch, from its log-probability under either model, in nats."""


class RelationObjective(Objective):
    """Compares how the joined rows of an example stand to each other: row m of one belongs to row m of the other."""

    unit: ClassVar[Unit] = "relation"

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        """One value for each example, `example` counting from 0 to E-1; 0 where it has no joined rows."""


class ExampleObjective(Objective):
    """Compares all rows of an example at once, without joining them. `example` counts from 0 to E-1 on both sides."""

    unit: ClassVar[Unit] = "example"

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        """One value for each example; 0 where a side has no rows of it."""


def as_target(source: LogitRows, pivot: LogitRows) -> LogitRows:
    """The source's rows as constants, their log-probabilities and moments in the pivot's dtype."""
    source, dtype = source.detach(), pivot.logprobs.dtype
    numbers = {name: getattr(source, name).to(dtype) for name in ("logprobs", "gold", "mean", "std")}
    return dataclasses.replace(source, **numbers)


def full_top(rows: LogitRows, k: int, side: str) -> LogitRows:
    """The `k` largest entries of each row. Raises ValueError where a row keeps fewer or has empty ones among them."""
    top = rows.top(k)
    if empty := int((top.ids < 0).any(-1).sum()):
        raise ValueError(
            f"{empty} of {len(rows)} {side} rows have empty entries among their first {k}. Comparing by rank needs {k} "
            f"numbers in every row: lower top_k, or extract the {side} again with a backend that gives {k} of them."
        )
    return top


def require_whole(rows: LogitRows, side: str, kind: str) -> None:
    """Raise ValueError where rows do not hold their whole vocabulary."""
    kept = rows.logprobs.detach().float().exp().sum(-1)
    if bool((kept < 1 - max(MISSING, 4 * torch.finfo(rows.logprobs.dtype).eps)).any()):
        raise ValueError(
            f"{kind} compares whole vocabularies, but the {rows.k} entries that the {side} rows keep hold as little as "
            f"{kept.min().item():.4f} of the probability. Extract the {side} with `top_k: all`, or use infifusion, "
            "which needs only the largest entries."
        )


def standardised(values: Float[Tensor, "N K"], rows: LogitRows, side: str, kind: str) -> Float[Tensor, "N K"]:
    """(value - mean) / std, by the moments of the whole rows. Raises ValueError where they are not known."""
    if unknown := int((rows.mean.isnan() | rows.std.isnan()).sum()):
        raise ValueError(
            f"{kind} needs the mean and std of the whole row of logits, and {unknown} of {len(rows)} {side} rows do not "
            f"have them (NaN). Set another input of {kind}, or extract the {side} again with a backend that sees the whole "
            "vocabulary."
        )
    return (values - rows.mean[:, None]) / rows.std.clamp(min=EPS)[:, None]
