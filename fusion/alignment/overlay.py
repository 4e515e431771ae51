"""One text in the tokens of two models, laid over each other: what each of them expected at every position."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from fusion.alignment import Alignment, align
from fusion.alignment.token_spans import token_spans
from fusion.core.overlay import Overlay, OverlayPosition
from fusion.core.rows import LogitRows

BYTES = 400
"""Positions that begin later in a response are left out: enough to see how two tokenizers meet."""
ENTRIES = 10
"""Entries of a row that are kept."""
DIGITS = 5
"""Digits of a probability that are kept."""

Spell = Callable[[int], str]
"""A token id as people read it."""


def overlay(
    domain: str,
    prompt: str,
    response: str,
    rows: Mapping[str, LogitRows],
    spell: Mapping[str, Spell],
    alignment: Alignment,
) -> Overlay:
    """Lay the rows of one example (number 0, with `token`) over each other; `pivot` is among them, the rest are sources.

    Raises ValueError for rows that do not know which token follows.
    """
    texts = {0: response.encode()}
    positions = {name: _positions(name, one, spell[name], texts) for name, one in rows.items()}
    pairs = {name: align(alignment, rows["pivot"], one, texts) for name, one in rows.items() if name != "pivot"}
    joined = {
        name: [
            (ours, theirs)
            for ours, theirs in zip(p.pivot.tolist(), p.source.tolist(), strict=True)
            if ours < len(positions["pivot"]) and theirs < len(positions[name])
        ]
        for name, p in pairs.items()
    }
    return Overlay(domain, prompt, response, positions, joined)


def _positions(name: str, rows: LogitRows, spell: Spell, texts: Mapping[int, bytes]) -> list[OverlayPosition]:
    if rows.token is None:
        raise ValueError(f"The rows of {name} do not say which token follows; encode the example again and add it.")
    found = []
    for row, (span, token) in enumerate(zip(token_spans(rows, texts), rows.token.tolist(), strict=True)):
        start, end = (None, None) if span is None else span
        if start is not None and start >= BYTES:
            break
        kept = zip(rows.ids[row].tolist(), rows.logprobs[row].tolist(), strict=True)
        likeliest = sorted(((id, _probability(value)) for id, value in kept if id >= 0), key=lambda pair: -pair[1])
        top = [(spell(id), probability) for id, probability in likeliest[:ENTRIES]]
        found.append(OverlayPosition(start, end, spell(token), _probability(rows.gold[row].item()), top))
    return found


def _probability(value: float) -> float:
    return round(min(1.0, math.exp(value)), DIGITS)
