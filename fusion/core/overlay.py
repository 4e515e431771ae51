"""One text in the tokens of several models: how alignment.json holds it, and what the report draws of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OverlayPosition:
    """One row of one model: the token that follows there, and what the model expected."""

    start: int | None
    """First byte of the text that the token covers; None where a tokenizer changed the text."""
    end: int | None
    """The byte after it; equal to `start` at the end of turn."""
    text: str
    """The token that follows."""
    gold: float
    """Probability that the model gave to it."""
    top: list[tuple[str, float]]
    """The likeliest tokens with their probabilities over the whole vocabulary, the largest first."""


@dataclass(frozen=True)
class Overlay:
    """One example in the tokens of every model; an entry of alignment.json. Raises ValueError for pairs of no position."""

    domain: str
    prompt: str
    response: str
    positions: dict[str, list[OverlayPosition]]
    """Model -> its positions in the order of the text; `pivot` is among them."""
    pairs: dict[str, list[tuple[int, int]]]
    """Source -> indices of the matched positions of pivot and source."""

    def __post_init__(self) -> None:
        for source, pairs in self.pairs.items():
            if not {"pivot", source} <= self.positions.keys():
                models = ", ".join(self.positions) or "no model"
                raise ValueError(f"pairs of {source!r}, but positions of {models} only")
            pivot_count, source_count = len(self.positions["pivot"]), len(self.positions[source])
            if any(not (0 <= a < pivot_count and 0 <= b < source_count) for a, b in pairs):
                raise ValueError(
                    f"a pair of {source!r} names a position beyond the {pivot_count} and {source_count} there are"
                )
