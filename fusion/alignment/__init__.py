"""Which rows of a source belong to which rows of the pivot, and which of its tokens to which of the pivot's.

Two tokenizers cut one text at different places. As in an alignment of token sequences by their text: advance the side whose
token ends earlier; where both sides reach the same byte, both models are conditioned on the same text, and their rows there
are a pair. `prefix` finds these pairs without walking, by a join on (example, bytes before the row); `truncate` and `dtw` are
kept to compare with what others published. What happens inside a word that only one of them cuts stands in `map_to_pivot`.

    align            rows of the pivot and of a source -> pairs
    map_to_pivot     pairs -> the source's rows in the pivot's vocabulary
    align_spans      pairs -> spans of text between shared boundaries
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from fusion.alignment.aligned_spans import align_spans
from fusion.alignment.audit import AlignmentAudit, MatchRate, audit
from fusion.alignment.dtw import dtw
from fusion.alignment.map_to_pivot import map_to_pivot
from fusion.alignment.prefix import match_prefixes
from fusion.alignment.spelling_distance import SpellingDistance
from fusion.alignment.stop import gold_of_stop
from fusion.alignment.token_map import coverage, exact_map, first_piece_map, map_entries
from fusion.alignment.truncate import truncate
from fusion.core.rows import Pairs, Positions
from fusion.core.spans import AlignedSpans

__all__ = [
    "ALIGNMENTS",
    "AlignedSpans",
    "Alignment",
    "AlignmentAudit",
    "MatchRate",
    "SpellingDistance",
    "align",
    "align_spans",
    "audit",
    "coverage",
    "dtw",
    "exact_map",
    "first_piece_map",
    "gold_of_stop",
    "map_entries",
    "map_to_pivot",
    "match_prefixes",
    "truncate",
]

Alignment = Literal["prefix", "truncate", "dtw"]
"""prefix: same bytes before both rows. truncate: t-th with t-th. dtw: dynamic time warping over the token texts."""

ALIGNMENTS: Mapping[Alignment, Callable[[Positions, Positions, Mapping[int, bytes]], Pairs]] = {
    "prefix": lambda pivot, source, _texts: match_prefixes(pivot, source),
    "truncate": lambda pivot, source, _texts: truncate(pivot, source),
    "dtw": dtw,
}


def align(kind: Alignment, pivot: Positions, source: Positions, texts: Mapping[int, bytes]) -> Pairs:
    """Find the pairs of rows that alignment `kind` makes; `texts`: example -> UTF-8 bytes of its response, read by dtw."""
    return ALIGNMENTS[kind](pivot, source, texts)
