"""Test questions that occur in the data a model was fused on, by shared n-grams of words, 13 by default (Brown et al. 2020)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion_eval.results import Sample
from fusion_eval.statistics.comparison import mean_interval
from fusion_eval.statistics.intervals import Interval
from fusion_eval.statistics.metrics import by_domain
from fusion_eval.suites.local_data import read_rows

NGRAM = 13
"""Words of an n-gram, as Brown et al. 2020 (arXiv:2005.14165, appendix C) take at most."""
MIN_WORDS = 6
"""Questions of fewer words than this are too short to tell; those between are looked for as a whole."""
MAX_SHARE = 0.1
"""N-grams in more than this share of a domain's questions, of at least 20, belong to its instructions, not to questions."""


@dataclass(frozen=True)
class DomainOverlap:
    """Questions of one domain that occur in the data, and how a model scores on these and on the others."""

    domain: str
    checked: int
    """Questions long enough to be looked for."""
    contaminated_ids: list[str]
    """Ids of the questions that share an n-gram with the data."""
    too_short: int
    """Questions too short to tell."""
    contaminated_score: Interval | None
    """Mean score on the questions found; None where there is no score. A value far above `clean_score` is a warning."""
    clean_score: Interval | None
    """Mean score on all other questions."""


def find_overlaps(samples: Sequence[Sample], texts: Iterable[str], n: int = NGRAM) -> list[DomainOverlap]:
    """Find, for each domain, the questions of which an n-gram of words occurs in one of `texts`.

    Words are letters and digits, in lower case; what stands between them does not count. Of samples with a score only the
    prompt is looked for, of others the whole text. Raises ValueError for n below `MIN_WORDS`.
    """
    if n < MIN_WORDS:
        raise ValueError(f"Runs of {n} words are found everywhere; take at least {MIN_WORDS}, or {NGRAM} as is usual.")
    domains = by_domain(samples)
    ngrams = {domain: _ngrams_by_id(questions, n) for domain, questions in domains.items()}
    candidates = set[str]().union(*(of_question for by_id in ngrams.values() for of_question in by_id.values()))
    in_data = _ngrams_in(texts, candidates)
    return [_overlap(domain, questions, ngrams[domain], in_data) for domain, questions in domains.items()]


def check_files(files: Iterable[Path]) -> None:
    """Raise FileNotFoundError for a file that is not there."""
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist; give the JSON lines (also in gzip) that were trained on.")


def read_texts(files: Sequence[Path]) -> Iterator[str]:
    """Read JSON-lines files: one text for each row, all its strings on lines of their own. Raises FileNotFoundError."""
    check_files(files)
    for file in files:
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


def _text(sample: Sample) -> str:
    return sample.prompt if sample.score is not None else f"{sample.prompt}\n{sample.target}"


def _ngrams(words: Sequence[str], n: int) -> set[str]:
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def _ngrams_by_id(samples: Sequence[Sample], n: int) -> dict[str, set[str]]:
    """The n-grams that a question is looked for by; none where it is too short."""
    ngrams: dict[str, set[str]] = {}
    for sample in samples:
        words = _words(_text(sample))
        ngrams[sample.id] = _ngrams(words, min(n, len(words))) if len(words) >= MIN_WORDS else set()
    counts = Counter(ngram for of_question in ngrams.values() for ngram in of_question)
    common = {ngram for ngram, count in counts.items() if len(samples) >= 20 and count > MAX_SHARE * len(samples)}
    return {id: of_question - common for id, of_question in ngrams.items()}


def _ngrams_in(texts: Iterable[str], candidates: set[str]) -> set[str]:
    """Those of the n-grams `candidates`, of whatever lengths, that occur in a text."""
    lengths = sorted({ngram.count(" ") + 1 for ngram in candidates})
    present: set[str] = set()
    for text in texts:
        words = _words(text)
        for length in lengths:
            present |= candidates & _ngrams(words, length)
    return present


def _overlap(
    domain: str, samples: Sequence[Sample], ngrams: Mapping[str, set[str]], in_data: set[str]
) -> DomainOverlap:
    contaminated = [sample for sample in samples if ngrams[sample.id] & in_data]
    clean = [sample for sample in samples if not ngrams[sample.id] & in_data]
    too_short = sum(not ngrams[sample.id] for sample in samples)
    ids = [sample.id for sample in contaminated]
    return DomainOverlap(domain, len(samples) - too_short, ids, too_short, _score(contaminated), _score(clean))


def _score(samples: Sequence[Sample]) -> Interval | None:
    scores = [sample.score for sample in samples if sample.score is not None]
    return mean_interval(scores, share=True) if scores else None
