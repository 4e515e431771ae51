"""Alignment by dynamic time warping over token texts, as earlier fusion methods do it; for comparison only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch

from fusion.alignment.token_spans import ByteRange, token_spans
from fusion.core.rows import Pairs, Positions


def dtw(pivot: Positions, source: Positions, texts: Mapping[int, bytes]) -> Pairs:
    """Pair the rows that the cheapest warping of the two token sequences of each example matches one to one.

    The cost of two tokens is the edit distance of their bytes without spaces around them; rows whose text is not known
    take no part. `texts`: example -> UTF-8 bytes of its response. A pair need not have equal prefixes: repeated words
    can be matched across a shift.

    Slow: time and memory grow with tokens x tokens of each example, some 10^6 cells a second on one core, where `join`
    takes millions of rows. Source: Wan et al. 2024 (FuseLLM), arXiv:2401.10491, section 3.2.
    """
    source_tokens = dict(_tokens_by_example(source, texts))
    pairs: list[tuple[int, int]] = []
    for example, (pivot_rows, pivot_texts) in _tokens_by_example(pivot, texts):
        if example in source_tokens:
            source_rows, source_texts = source_tokens[example]
            pairs += [(pivot_rows[i], source_rows[j]) for i, j in _one_to_one(pivot_texts, source_texts)]
    both = torch.tensor(pairs, dtype=torch.long, device=pivot.example.device).reshape(-1, 2)
    pivot_index, source_index = both.unbind(1)
    return Pairs(pivot_index, source_index)


def _tokens_by_example(
    rows: Positions, texts: Mapping[int, bytes]
) -> Iterator[tuple[int, tuple[list[int], list[bytes]]]]:
    """Each example with the places of its rows and the text that follows each of them."""
    grouped: dict[int, list[tuple[int, ByteRange]]] = {}
    for place, (example, span) in enumerate(zip(rows.example.tolist(), token_spans(rows, texts), strict=True)):
        if span is not None:
            grouped.setdefault(example, []).append((place, span))
    for example, found in grouped.items():
        yield example, ([place for place, _ in found], [texts[example][a:b].strip(b" ") for _, (a, b) in found])


def _one_to_one(pivot: Sequence[bytes], source: Sequence[bytes]) -> list[tuple[int, int]]:
    """The steps of the warping path at which neither side is matched with anything else."""
    path = _path(_costs(pivot, source))
    rows, columns = np.bincount([i for i, _ in path]), np.bincount([j for _, j in path])
    return [(i, j) for i, j in path if rows[i] == 1 and columns[j] == 1]


def _costs(pivot: Sequence[bytes], source: Sequence[bytes]) -> np.ndarray:
    """Edit distance of each pivot token to each source token; each pair of different texts is compared once."""
    pivot_texts, source_texts = list(dict.fromkeys(pivot)), list(dict.fromkeys(source))
    table = np.empty((len(pivot_texts), len(source_texts)), dtype=np.int64)
    for row, a in enumerate(pivot_texts):
        table[row] = [edit_distance(a, b) for b in source_texts]
    pivot_place, source_place = (
        {text: place for place, text in enumerate(texts)} for texts in (pivot_texts, source_texts)
    )
    return table[np.ix_([pivot_place[text] for text in pivot], [source_place[text] for text in source])]


def _path(costs: np.ndarray) -> list[tuple[int, int]]:
    """The cheapest path from the first corner to the last by steps of (1, 1), (1, 0), (0, 1); diagonal on ties."""
    total = np.full((costs.shape[0] + 1, costs.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i, row in enumerate(costs.tolist(), start=1):
        above, left = total[i - 1].tolist(), np.inf
        line = [np.inf]
        for j, cost in enumerate(row, start=1):
            left = cost + min(above[j - 1], above[j], left)
            line.append(left)
        total[i] = line
    i, j = costs.shape
    path = []
    while i and j:
        path.append((i - 1, j - 1))
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda step: total[step])
    return path[::-1]


@lru_cache(maxsize=1 << 16)
def edit_distance(a: bytes, b: bytes) -> int:
    """Levenshtein distance: fewest bytes to insert, delete or replace to turn `a` into `b`."""
    line = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, line[0] = line[0], i
        for j, y in enumerate(b, start=1):
            diagonal, line[j] = line[j], min(line[j] + 1, line[j - 1] + 1, diagonal + (x != y))
    return line[-1]
