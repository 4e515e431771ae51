"""What every backend offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from fusion.encode import Encoded
from fusion.rows import LogitRows


class Source(Protocol):
    """A frozen model that describes its next-token logits along given text."""

    def rows(self, texts: Sequence[Encoded], progress: Callable[[int], None] | None = None) -> LogitRows:
        """Rows of all texts, one text after another, numbered from 0 in `example`. `progress` hears of tokens done."""
        ...
