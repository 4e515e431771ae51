"""Whether test questions stand in the data a model was fused on: shared runs of words, 13 by default (Brown et al. 2020)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion_eval.results import Item
from fusion_eval.statistics.bootstrap import Interval
from fusion_eval.statistics.comparison import mean
from fusion_eval.suites.local_data import read_rows

WORDS = 13
"""Words of a run, as Brown et al. 2020 (arXiv:2005.14165, appendix C) take at most."""
SHORTEST = 6
"""Questions of fewer words than this are too short to tell; those between are looked for as a whole."""
COMMON = 0.1
"""Runs that stand in more than this share of a domain's questions, of at least 20, are its instructions, not questions."""


@dataclass(frozen=True)
class Overlap:
    """One domain."""

    domain: str
    checked: int
    found: list[str]
    """Ids of the questions that share a run of words with the data."""
    short: int
    """Questions too short to tell."""
    score_found: Interval | None
    score_clean: Interval | None
    """Mean score of both, where a model has scores; a large difference is a warning."""


def overlaps(items: Sequence[Item], texts: Iterable[str], n: int = WORDS) -> list[Overlap]:
    """For each domain, the questions of which a run of `n` words stands in one of `texts`.

    Words are letters and digits, small and capital alike; what stands between them does not count. Of
    questions only the prompt is looked for, of texts that are only read the whole. Raises ValueError for n below `SHORTEST`.
    """
    if n < SHORTEST:
        raise ValueError(f"Runs of {n} words are found everywhere; take at least {SHORTEST}, or {WORDS} as is usual.")
    domains: dict[str, list[Item]] = {}
    for item in items:
        domains.setdefault(item.domain, []).append(item)
    runs = {domain: _runs(found, n) for domain, found in domains.items()}
    seen = _seen({run for ids in runs.values() for found in ids.values() for run in found}, texts)
    return [_overlap(domain, found, runs[domain], seen) for domain, found in domains.items()]


def texts_of(files: Iterable[Path]) -> Iterator[str]:
    """All strings of each row of JSON-lines files, one below the other. Raises FileNotFoundError."""
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist; give the JSON lines (also in gzip) that were trained on.")
        for row in read_rows(file):
            yield "\n".join(_strings(row))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(inner)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _text(item: Item) -> str:
    return item.prompt if item.score is not None else f"{item.prompt}\n{item.expected}"


def _grams(words: Sequence[str], n: int) -> set[str]:
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def _runs(items: Sequence[Item], n: int) -> dict[str, set[str]]:
    """By id, the runs that stand for a question; none where it is too short."""
    words = {item.id: _words(_text(item)) for item in items}
    runs = {id: _grams(said, min(n, len(said))) if len(said) >= SHORTEST else set[str]() for id, said in words.items()}
    often = Counter(run for found in runs.values() for run in found)
    common = {run for run, count in often.items() if len(items) >= 20 and count > COMMON * len(items)}
    return {id: found - common for id, found in runs.items()}


def _seen(wanted: set[str], texts: Iterable[str]) -> set[str]:
    lengths = sorted({run.count(" ") + 1 for run in wanted})
    seen: set[str] = set()
    for text in texts:
        words = _words(text)
        for length in lengths:
            seen |= wanted & _grams(words, length)
    return seen


def _overlap(domain: str, items: Sequence[Item], runs: Mapping[str, set[str]], seen: set[str]) -> Overlap:
    found = [item.id for item in items if runs[item.id] & seen]
    short = sum(not runs[item.id] for item in items)
    hit = set(found)
    return Overlap(
        domain, len(items) - short, found, short,
        _score([item for item in items if item.id in hit]), _score([item for item in items if item.id not in hit]),
    )  # fmt: skip


def _score(items: Sequence[Item]) -> Interval | None:
    scores = [item.score for item in items if item.score is not None]
    return mean(scores) if scores else None
