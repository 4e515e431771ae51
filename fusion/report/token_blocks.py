"""Two tokenizations of one text as the page shows them: cut into token_blocks where both have a boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusion.core.overlay import Overlay, OverlayPosition


@dataclass(frozen=True)
class TokenBox:
    """One token of one model, as the page draws it."""

    index: int
    """Index of its position in the model's list."""
    text: str
    """The bytes of the response that it covers, or the token where it covers none."""
    gold: float
    """Probability that the model gave to it."""
    partner: int | None
    """Index of the position of the other model that it is matched with; None for none."""
    empty: bool
    """Whether it covers no byte, as the end of turn does."""


@dataclass(frozen=True)
class TokenBlock:
    """A span of text between two boundaries that both tokenizers have; it begins with a matched pair or with none."""

    pivot: list[TokenBox]
    source: list[TokenBox]

    @property
    def matched(self) -> bool:
        """Whether any position here is compared with one of the other model."""
        return any(box.partner is not None for box in (*self.pivot, *self.source))


def token_blocks(overlay: Overlay, source: str) -> list[TokenBlock]:
    """The text in the tokens of the pivot and of one source, block by block; every position stands in exactly one."""
    pivot_positions, source_positions = overlay.positions["pivot"], overlay.positions[source]
    pairs = overlay.pairs[source]
    common = sorted(_starts(pivot_positions) & _starts(source_positions))
    text = overlay.response.encode()
    swapped = {b: a for a, b in pairs}
    pivot_boxes = _by_boundary(_boxes(pivot_positions, text, dict(pairs)), pivot_positions, common)
    source_boxes = _by_boundary(_boxes(source_positions, text, swapped), source_positions, common)
    cut = [TokenBlock(*boxes) for boxes in zip(pivot_boxes, source_boxes, strict=True)]
    return [block for block in cut if block.pivot or block.source]


def _starts(positions: Sequence[OverlayPosition]) -> set[int]:
    return {position.start for position in positions if position.start is not None}


def _boxes(positions: Sequence[OverlayPosition], text: bytes, partners: dict[int, int]) -> list[TokenBox]:
    found = []
    for index, position in enumerate(positions):
        covered = b"" if position.start is None else text[position.start : position.end]
        text_shown = covered.decode(errors="backslashreplace") or position.text
        found.append(TokenBox(index, text_shown, position.gold, partners.get(index), empty=not covered))
    return found


def _by_boundary(
    boxes: Sequence[TokenBox], positions: Sequence[OverlayPosition], common: Sequence[int]
) -> list[list[TokenBox]]:
    """Boxes of each span; those that stand nowhere stay with the one before them."""
    found: list[list[TokenBox]] = [[] for _ in range(len(common) + 1)]
    place = 0
    for box, position in zip(boxes, positions, strict=True):
        while position.start is not None and place < len(common) and position.start >= common[place]:
            place += 1
        found[place].append(box)
    return found
