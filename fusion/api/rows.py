"""Rows of two models, compared in a loop of one's own: which belong together, and what one says in the other's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from fusion import alignment
from fusion.alignment import Alignment, tokenizer_pair
from fusion.core.rows import LogitRows, Pairs, Positions
from fusion.data.prompt_format import PromptFormat
from fusion.models.head import Head


def align(
    pivot: Positions, source: Positions, *, kind: Alignment = "prefix", texts: Mapping[int, bytes] | None = None
) -> Pairs:
    """Find the rows of a pivot and of a source that predict the same text: both have read the same bytes before it.

    `kind` may also be `truncate` (the t-th row with the t-th) or `dtw` (dynamic time warping over the texts of the tokens),
    to compare with what others do; `dtw` needs `texts`, the UTF-8 bytes of each response by the number of its example. Raises
    ValueError where it has none.
    """
    if kind == "dtw" and texts is None:
        raise ValueError("align with kind='dtw' compares the texts of tokens; give texts, or take kind='prefix'.")
    return alignment.align(kind, pivot, source, texts or {})


def vocabulary_map(source_tokenizer: Any, pivot_tokenizer: Any, *, kind: str = "exact") -> Int[Tensor, " V"]:
    """Return the pivot's id of each id of a source, -1 for none; shape [V of the source].

    `exact` maps tokens that stand for the same bytes, `first_piece` every token to the first piece of what the pivot's
    tokenizer makes of it. What ends an answer of one model is what ends an answer of the other. Raises ValueError for
    another `kind`.
    """
    if kind not in ("exact", "first_piece"):
        raise ValueError(f"kind is {kind!r}; a vocabulary map is exact or first_piece.")
    return tokenizer_pair.vocabulary_map(kind, source_tokenizer, pivot_tokenizer, (PromptFormat(), PromptFormat()))


def logit_rows(
    logits: Float[Tensor, "N V"],
    positions: Positions,
    *,
    top_k: int = 0,
    ids: Int[Tensor, "N K"] | None = None,
) -> LogitRows:
    """Return rows made of a model's logits, with gradients: at the ids given, or else of the `top_k` largest entries.

    `logits[n]` predicts `positions.token[n]`; `positions.select(...)` takes some of the positions of a batch. An id of -1 is
    an empty entry, whose log-probability means nothing. With `ids=mapped.ids` the rows are what objectives on mapped rows
    compare with `mapped`. Raises ValueError where both, or neither, are given.
    """
    if (ids is None) == (top_k == 0):
        raise ValueError("logit_rows takes top_k, for the largest entries, or ids, for chosen ones.")
    rows, logprobs = Head(nn.Identity(), logits.shape[-1]).rows(logits, positions, top_k, ids)
    if ids is None:
        return rows
    return LogitRows.at(positions, logprobs=logprobs, ids=ids, gold=rows.gold, mean=rows.mean, std=rows.std)
