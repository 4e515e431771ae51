"""What every transform promises: rows that are changed before any objective sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fusion.core.rows import LogitRows
from fusion.core.settings import Settings


class Transform(Settings, ABC):
    """Changes rows of a source. What comes out are rows like any others: distributions in the gauge logsumexp = 0."""

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the source's rows, besides entries, that must be known: of gold, mean and std."""
        return frozenset()

    @property
    def entries(self) -> int | None:
        """How many entries each row must keep: 0 for any number, None for the whole vocabulary."""
        return 0


class OwnTransform(Transform):
    """Changes rows in the source's own vocabulary, all of them: every objective sees the change."""

    @abstractmethod
    def __call__(self, rows: LogitRows, vocabulary: int) -> LogitRows:
        """The changed rows; `vocabulary` is the number of the source's tokens."""


class MappedTransform(Transform):
    """Changes rows that were mapped into the pivot's vocabulary: objectives that compare by token see the change.

    `token` is the pivot's following token and `gold` what the source gives to it, NaN where that is not known.
    """

    @abstractmethod
    def __call__(self, rows: LogitRows) -> LogitRows:
        """The changed rows, perhaps with other numbers of entries."""
