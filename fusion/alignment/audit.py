"""The alignment audit: where a source's rows meet the pivot's, and which of the pivot's tokens never meet any."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fusion.alignment.token_spans import token_spans
from fusion.core.rows import Pairs, Positions

MAX_UNMATCHED = 50


@dataclass(frozen=True)
class MatchRate:
    """How many of some rows have a pair."""

    matched: int
    rows: int

    @property
    def rate(self) -> float:
        """Share of the rows that have a pair, 0 to 1; NaN where there are no rows."""
        return self.matched / self.rows if self.rows else float("nan")


@dataclass(frozen=True)
class AlignmentAudit:
    """How many of the pivot's rows one source has a row for, and where it has none."""

    total: MatchRate
    by_domain: dict[str, MatchRate]
    by_class: dict[str, MatchRate]
    """By the kind of text that follows a row, see `text_class`."""
    unmatched_tokens: list[tuple[str, int]]
    """The commonest token texts of the pivot that never have a pair, with how often each occurs; commonest first."""


def audit(
    pivot: Positions, source: Positions, pairs: Pairs, texts: Mapping[int, bytes], domains: Mapping[int, str]
) -> AlignmentAudit:
    """Count match rates of the pivot's rows by domain and by class of the text that follows, and what is never matched.

    `texts`: example -> UTF-8 bytes of its response. `domains`: example -> its domain. Rows of examples that the source
    has no rows for count as unmatched. Raises ValueError for examples without a text or a domain, and for pairs that
    do not belong to these rows.
    """
    examples = pivot.example.tolist()
    _check(pivot, source, pairs, domains)
    matched = [False] * len(pivot)
    for row in pairs.pivot.tolist():
        matched[row] = True
    follows = token_spans(pivot, texts)
    classes = ["unknown" if s is None else text_class(texts[e], *s) for e, s in zip(examples, follows, strict=True)]
    words = [None if s is None else texts[e][slice(*s)] for e, s in zip(examples, follows, strict=True)]
    return AlignmentAudit(
        total=MatchRate(sum(matched), len(matched)),
        by_domain=_match_rates(zip((domains[example] for example in examples), matched, strict=True)),
        by_class=_match_rates(zip(classes, matched, strict=True)),
        unmatched_tokens=_unmatched(zip(words, matched, strict=True)),
    )


def _check(pivot: Positions, source: Positions, pairs: Pairs, domains: Mapping[int, str]) -> None:
    if lost := sorted(set(pivot.example.tolist()) - domains.keys()):
        raise ValueError(
            f"Examples {lost[:5]} have rows but no domain; domains were given for {len(domains)} examples."
        )
    for side, rows, index in (("pivot", pivot, pairs.pivot), ("source", source, pairs.source)):
        if len(index) and int(index.max()) >= len(rows):
            raise ValueError(f"Pairs name the {side} row {int(index.max())}, but there are {len(rows)}; align again.")
    if not pivot.example[pairs.pivot].equal(source.example[pairs.source]):
        raise ValueError("Pairs join rows of different examples, so they were made from other rows; align again.")


def _match_rates(rows: Iterable[tuple[str, bool]]) -> dict[str, MatchRate]:
    counts = Counter(rows)
    names = sorted({name for name, _ in counts})
    return {name: MatchRate(counts[name, True], counts[name, True] + counts[name, False]) for name in names}


def _unmatched(rows: Iterable[tuple[bytes | None, bool]]) -> list[tuple[str, int]]:
    counts = Counter((word, matched) for word, matched in rows if word)
    never = Counter({word: n for (word, matched), n in counts.items() if not matched and not counts[word, True]})
    return [(word.decode(errors="backslashreplace"), n) for word, n in never.most_common(MAX_UNMATCHED)]


def text_class(text: bytes, start: int, end: int) -> str:
    """The kind of text at bytes `start` to `end`, judged by the whole characters that they touch.

    `end of turn` behind the text, `nothing` for no bytes; for white space `indent` (blanks at the beginning of a line,
    with the line break before them or not), `line break` or `space`; and by what stands between white space `emoji`,
    `CJK`, `numeral`, `punctuation` (symbols included), `word` (letters and marks), else `mixed`.
    """
    if start == end:
        return "end of turn" if start == len(text) else "nothing"
    while start and text[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    piece = text[start:end].decode()
    if not piece.strip():
        return _white_space(text, start, end)
    kinds = {_kind(character) for character in piece.strip()}
    return next((kind for kind in ("emoji", "CJK") if kind in kinds), kinds.pop() if len(kinds) == 1 else "mixed")


def _white_space(text: bytes, start: int, end: int) -> str:
    line = text[:end].replace(b"\r", b"\n").rpartition(b"\n")[2]
    if not line:
        return "line break"
    if line.strip(b" \t") == b"" and text[end - 1 : end] in (b" ", b"\t"):
        return "indent"
    return "line break" if b"\n" in text[start:end] else "space"


def _kind(character: str) -> str:
    code = ord(character)
    if 0x1F000 <= code < 0x1FB00 or 0x2600 <= code < 0x27C0 or code in (0x200D, 0x20E3, 0xFE0F):
        return "emoji"
    if 0x1100 <= code < 0x1200 or 0x2E80 <= code < 0xA000 or 0xAC00 <= code < 0xD7B0 or 0xF900 <= code < 0xFB00:
        return "CJK"
    if 0xFF00 <= code < 0xFFF0 or 0x20000 <= code < 0x32000:
        return "CJK"
    category = unicodedata.category(character)[0]
    return {"N": "numeral", "L": "word", "M": "word"}.get(category, "punctuation")
