"""The piece of response text that follows each row."""

from __future__ import annotations

from collections.abc import Mapping

from fusion.core.rows import Positions

ByteRange = tuple[int, int]
"""First byte and end of a piece of a response."""


def token_spans(rows: Positions, texts: Mapping[int, bytes]) -> list[ByteRange | None]:
    """Find the bytes that each row predicts: from its prefix to the next known prefix of its example.

    Empty at the end of turn. None where it is not known: at a row whose own prefix is -1, and at the last row of an
    example that was cut off. Raises ValueError when an example has no text.
    """
    ranges: list[ByteRange | None] = []
    examples, prefixes = rows.example.tolist(), rows.prefix.tolist()
    following, after = None, -1  # next known prefix, and the example it belongs to
    for example, prefix in zip(reversed(examples), reversed(prefixes), strict=True):
        if example not in texts:
            raise ValueError(f"Example {example} has rows but no text; texts were given for {len(texts)} examples.")
        if example != after:
            following, after = (len(texts[example]) if prefix == len(texts[example]) else None), example
        ranges.append(None if prefix < 0 or following is None else (prefix, following))
        following = prefix if prefix >= 0 else following
    return ranges[::-1]
