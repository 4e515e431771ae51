"""Sequences of a file to the examples of a data set: an example is found where a sequence begins with its tokens."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import takewhile

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded
from fusion.sources.importers.sequence import ImportedSequence

OTHER_TEXT = "begin like no example"
OTHER_RESPONSE = "begin with an example's prompt and go on otherwise"
TOO_SHORT = "end before the example does"


def match_to_examples(
    sequences: Iterable[ImportedSequence], texts: Mapping[str, Encoded], k: int, vocabulary: int
) -> tuple[dict[str, LogitRows], Counter[str]]:
    """The rows of each example by its id, and how many sequences were of use, or of none and why.

    What follows the example in a sequence (padding, a line break after the end of turn) is nothing to it. Where several
    sequences begin with it, the first counts. All rows are held in memory.
    """
    keys = sorted((text.input_ids, id) for id, text in texts.items())
    tokens = [key for key, _ in keys]
    found: dict[str, LogitRows] = {}
    counts: Counter[str] = Counter()
    for told in sequences:
        place, shared = longest_prefix(tokens, told.tokens)
        if shared < len(tokens[place]):
            text = texts[keys[place][1]]
            cut = shared == len(told.tokens)
            counts[TOO_SHORT if cut else OTHER_TEXT if shared < text.start else OTHER_RESPONSE] += 1
            continue
        counts["matched"] += 1
        for _, id in keys[bisect_left(tokens, tokens[place]) : place + 1]:
            if id not in found:
                found[id] = told.rows_for(texts[id], k, vocabulary)
    return found, counts


def longest_prefix(keys: list[list[int]], sequence: list[int]) -> tuple[int, int]:
    """Place of the longest of the sorted `keys` that `sequence` begins with, or else of one that shares the most; how much."""
    closest, most, left = 0, -1, sequence
    while True:
        place = bisect_right(keys, left) - 1
        for near in (place, place + 1):
            shared = _common_prefix(keys[near], left) if 0 <= near < len(keys) else -1
            if shared > most:
                closest, most = near, shared
        if place < 0:
            return closest, most
        shared = _common_prefix(keys[place], left)
        if shared == len(keys[place]):
            return place, shared
        left = left[:shared]


def _common_prefix(one: list[int], other: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
