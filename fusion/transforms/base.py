"""What every transform promises: rows that are changed before any objective sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.core.settings import Settings


class Transform(Settings, ABC):
    """Changes rows of a source. What comes out are rows like any others: distributions in the gauge logsumexp = 0."""

    if TYPE_CHECKING:
        kind: Any

    @property
    def required_source_fields(self) -> frozenset[str]:
        """Fields of the source's rows, besides entries, that must be known: of gold, mean and std."""
        return frozenset()

    @property
    def required_top_k(self) -> int | None:
        """How many entries each row must keep: 0 for any number, None for the whole vocabulary."""
        return 0

    def transform_rows(self, rows: LogitRows, vocabulary: int) -> LogitRows:
        """Change rows in the source's own vocabulary of so many tokens; they stay as they are if a type says nothing else."""
        return rows

    def transform_mapped(self, rows: MappedRows) -> MappedRows:
        """Change rows that were mapped into the pivot's vocabulary; they stay as they are if a type says nothing else."""
        return rows


class SourceTransform(Transform):
    """Changes rows in the source's own vocabulary, all of them: every objective sees the change."""

    @abstractmethod
    def __call__(self, rows: LogitRows, vocabulary: int) -> LogitRows:
        """Change the rows; `vocabulary` is the number of the source's tokens."""

    @override
    def transform_rows(self, rows: LogitRows, vocabulary: int) -> LogitRows:
        return self(rows, vocabulary)


class MappedTransform(Transform):
    """Changes rows that were mapped into the pivot's vocabulary: objectives that compare by token see the change."""

    @abstractmethod
    def __call__(self, rows: MappedRows) -> MappedRows:
        """Change the rows, perhaps with other numbers of entries."""

    @override
    def transform_mapped(self, rows: MappedRows) -> MappedRows:
        return self(rows)
