"""Two tokenizations of one text as the page shows them: cut into blocks where both have a boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusion.report.facts import Overlay, Position


@dataclass(frozen=True)
class Box:
    """One token as it stands on the page."""

    index: int
    """Which position of its lane."""
    text: str
    """The bytes of the response that it covers, or the token where it covers none."""
    gold: float
    """Probability that the model gave to it."""
    partner: int | None
    """The position of the other model that it is compared with."""
    empty: bool
    """Whether it covers no byte, as the end of turn does."""


@dataclass(frozen=True)
class Block:
    """A stretch of text between two boundaries that both tokenizers have; it begins with a matched pair or with none."""

    pivot: list[Box]
    source: list[Box]

    @property
    def matched(self) -> bool:
        """Whether any position here is compared with one of the other model."""
        return any(box.partner is not None for box in (*self.pivot, *self.source))


def blocks(overlay: Overlay, source: str) -> list[Block]:
    """The text in the tokens of the pivot and of one source, block by block; every position stands in exactly one."""
    ours, theirs, pairs = overlay.lanes["pivot"], overlay.lanes[source], overlay.pairs[source]
    common = sorted({p.start for p in ours if p.start is not None} & {p.start for p in theirs if p.start is not None})
    text = overlay.response.encode()
    lanes = [
        _by_boundary(_boxes(lane, text, dict(partners)), lane, common)
        for lane, partners in ((ours, pairs), (theirs, [(b, a) for a, b in pairs]))
    ]
    found = [Block(pivot, source) for pivot, source in zip(*lanes, strict=True)]
    return [block for block in found if block.pivot or block.source]


def _boxes(lane: Sequence[Position], text: bytes, partners: dict[int, int]) -> list[Box]:
    found = []
    for index, position in enumerate(lane):
        covered = b"" if position.start is None else text[position.start : position.end]
        shown = covered.decode(errors="backslashreplace") or position.text
        found.append(Box(index, shown, position.gold, partners.get(index), empty=not covered))
    return found


def _by_boundary(boxes: Sequence[Box], lane: Sequence[Position], common: Sequence[int]) -> list[list[Box]]:
    """Boxes of each stretch; those that stand nowhere stay with the one before them."""
    found: list[list[Box]] = [[] for _ in range(len(common) + 1)]
    place = 0
    for box, position in zip(boxes, lane, strict=True):
        while position.start is not None and place < len(common) and position.start >= common[place]:
            place += 1
        found[place].append(box)
    return found
