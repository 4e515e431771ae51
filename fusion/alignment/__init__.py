"""Which rows of a source belong to which rows of the pivot, and which of its tokens to which of the pivot's.

`prefix` is the way to align; `truncate` and `dtw` are kept to compare with what others published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_never, get_args

from fusion.alignment.aligned_spans import Stretches, stretches
from fusion.alignment.audit import Audit, Share, audit
from fusion.alignment.dtw import dtw
from fusion.alignment.map_to_pivot import translate
from fusion.alignment.prefix import join
from fusion.alignment.spelling_distance import Words
from fusion.alignment.token_map import coverage, exact_map, first_piece_map, map_rows
from fusion.alignment.truncate import truncate
from fusion.core.rows import LogitRows, Pairs

__all__ = [
    "ALIGNMENTS",
    "Alignment",
    "Audit",
    "Share",
    "Stretches",
    "Words",
    "align",
    "audit",
    "coverage",
    "dtw",
    "exact_map",
    "first_piece_map",
    "join",
    "map_rows",
    "stretches",
    "translate",
    "truncate",
]

Alignment = Literal["prefix", "truncate", "dtw"]
"""prefix: same bytes before both rows. truncate: t-th with t-th. dtw: dynamic time warping over the token texts."""

ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)


def align(kind: Alignment, pivot: LogitRows, source: LogitRows, texts: Mapping[int, bytes]) -> Pairs:
    """The pairs of rows that alignment `kind` makes; `texts`: example -> UTF-8 bytes of its response, read by dtw."""
    match kind:
        case "prefix":
            return join(pivot, source)
        case "truncate":
            return truncate(pivot, source)
        case "dtw":
            return dtw(pivot, source, texts)
        case _:
            assert_never(kind)
