"""The join on byte prefixes against dynamic time warping, on the same text in two tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from fusion.alignment.dtw import dtw
from fusion.alignment.prefix import match_prefixes
from fusion.core.rows import LogitRows
from fusion.data.batching import pad_texts
from fusion.data.encode import encode
from tests.benchmarks.measure import Figure, best, seconds
from tests.helpers import tiny

LICENCE = Path(__file__).parents[2] / "LICENSE"
FOREIGN = {"the": "thé", "Work": "作品", "or": "ör", "License": "licence 🙂", "and": "и"}


def measure() -> Iterable[Figure]:
    """A text of 4,000 characters with accents, Chinese, Cyrillic and emoji; tokens of the pivot a CPU second."""
    text = LICENCE.read_text()[:4000]
    for word, foreign in FOREIGN.items():
        text = text.replace(word, foreign)
    one, other = (tiny.TOKENIZERS[kind](tiny.TEXTS) for kind in ("llama", "gpt_neox"))
    pivot, source = _rows(one, text, 1), _rows(other, text, 1)
    shared = (set(pivot.prefix.tolist()) & set(source.prefix.tolist())) - {-1}
    found = set(pivot.prefix[match_prefixes(pivot, source).pivot].tolist())
    yield Figure("shared byte boundaries found", f"{len(found & shared):,} of {len(shared):,}", "all", "by brute force")
    slow = len(pivot) / seconds(lambda: dtw(pivot, source, {0: text.encode()}))
    many = _rows(one, text, 50), _rows(other, text, 50)
    quick = len(many[0]) / best(lambda: match_prefixes(*many))
    how = f"{quick:,.0f} against {slow:,.0f}"
    yield Figure("tokens a second: prefix match / dynamic time warping", f"{quick / slow:,.0f}", "≥ 1,000", how)


def _rows(tokenizer, text: str, examples: int) -> LogitRows:
    one = encode(tokenizer, [{"role": "user", "content": "?"}], text)
    rows = pad_texts([one], "cpu")[2]
    return LogitRows.cat(
        [LogitRows(**{**vars(rows), "example": torch.full_like(rows.example, i)}) for i in range(examples)]
    )
