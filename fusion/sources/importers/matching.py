"""Match imported sequences to examples: an example belongs to the sequences that begin with its tokens."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import takewhile

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded
from fusion.sources.importers.sequence import ImportedSequence
from fusion.sources.listed import SourceCheck

OTHER_TEXT = "begin like no example"
OTHER_RESPONSE = "begin with an example's prompt and go on otherwise"
TOO_SHORT = "end before the example does"


def match_to_examples(
    sequences: Iterable[ImportedSequence], texts: Mapping[str, Encoded], k: int, vocabulary: int
) -> tuple[dict[str, LogitRows], Counter[str]]:
    """Return the rows of each matched example by its id, and counts of sequences: matched, or why not.

    Tokens after the example (padding, a line break after the end of turn) are ignored. Where several sequences begin with
    an example, the first is used. All rows are held in memory. Raises ValueError where the rows of a file, or of all files,
    cannot be log-probabilities about these texts, and says where they hardly can; see `SourceCheck`.
    """
    keys = sorted((text.input_ids, id) for id, text in texts.items())
    tokens = [key for key, _ in keys]
    rows: dict[str, LogitRows] = {}
    counts: Counter[str] = Counter()
    checks: dict[str, SourceCheck] = {}
    for sequence in sequences:
        index, shared = longest_prefix(tokens, sequence.tokens)
        if shared < len(tokens[index]):
            text = texts[keys[index][1]]
            cut = shared == len(sequence.tokens)
            counts[TOO_SHORT if cut else OTHER_TEXT if shared < text.start else OTHER_RESPONSE] += 1
            continue
        counts["matched"] += 1
        for _, id in keys[bisect_left(tokens, tokens[index]) : index + 1]:
            if id not in rows:
                check = checks.setdefault(sequence.file, SourceCheck(vocabulary))
                check.add(sequence.rows_about(texts[id]), sequence.about_tokens())
                rows[id] = sequence.rows_for(texts[id], k, vocabulary)
    _conclude(checks, SourceCheck(vocabulary))
    return rows, counts


def _conclude(checks: Mapping[str, SourceCheck], together: SourceCheck) -> None:
    for file, check in checks.items():
        check.conclude(file, warn=False)
        together.absorb(check)
    together.conclude(next(iter(checks), "") if len(checks) < 2 else f"{len(checks)} files")


def longest_prefix(keys: list[list[int]], sequence: list[int]) -> tuple[int, int]:
    """Return the index of the longest of the sorted `keys` that is a prefix of `sequence`, and its length.

    Where none is: the index of a key that shares the most leading tokens, and how many.
    """
    closest, most, prefix = 0, -1, sequence
    while True:
        index = bisect_right(keys, prefix) - 1
        for near in (index, index + 1):
            shared = _common_prefix(keys[near], prefix) if 0 <= near < len(keys) else -1
            if shared > most:
                closest, most = near, shared
        if index < 0:
            return closest, most
        shared = _common_prefix(keys[index], prefix)
        if shared == len(keys[index]):
            return index, shared
        prefix = prefix[:shared]  # no key between here and there can share more


def _common_prefix(one: list[int], other: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
