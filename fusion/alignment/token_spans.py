"""The piece of response text that follows each row."""

from __future__ import annotations

from collections.abc import Mapping

from fusion.core.rows import LogitRows

Span = tuple[int, int]
"""First byte and end of a piece of a response."""


def spans(rows: LogitRows, texts: Mapping[int, bytes]) -> list[Span | None]:
    """The bytes that each row predicts: from its prefix to the next known prefix of its example.

    Empty at the end of turn. None where it is not known: at a row whose own prefix is -1, and at the last row of an
    example that was cut off. Raises ValueError when an example has no text.
    """
    found: list[Span | None] = []
    examples, prefixes = rows.example.tolist(), rows.prefix.tolist()
    following, after = None, -1  # next known prefix, and the example it belongs to
    for example, prefix in zip(reversed(examples), reversed(prefixes), strict=True):
        if example not in texts:
            raise ValueError(f"Example {example} has rows but no text; texts were given for {len(texts)} examples.")
        if example != after:
            following, after = (len(texts[example]) if prefix == len(texts[example]) else None), example
        found.append(None if prefix < 0 or following is None else (prefix, following))
        following = prefix if prefix >= 0 else following
    return found[::-1]
