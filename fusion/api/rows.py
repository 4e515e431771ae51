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

    Args:
        pivot: Rows of the pivot (`LogitRows`, or positions alone).
        source: Rows of the source, whose `example` counts the same examples.
        kind: `prefix`: same bytes before both. To compare with what others do, `truncate`: the t-th row with the t-th, or
            `dtw`: dynamic time warping over the texts of the tokens.
        texts: The UTF-8 bytes of each response by the number of its example; read by `dtw` alone.

    Returns:
        `Pairs` of M rows: row `pairs.pivot[m]` of the one belongs to row `pairs.source[m]` of the other.

    Raises:
        ValueError: For `dtw` without texts.
    """
    if kind == "dtw" and texts is None:
        raise ValueError("align with kind='dtw' compares the texts of tokens; give texts, or take kind='prefix'.")
    return alignment.align(kind, pivot, source, texts or {})


def vocabulary_map(source_tokenizer: Any, pivot_tokenizer: Any, *, kind: str = "first_piece") -> Int[Tensor, " V"]:
    """Return the pivot's id of each id of a source, -1 for none.

    What ends an answer of one model is mapped to what ends an answer of the other.

    Args:
        source_tokenizer: A tokenizer of transformers, with V tokens.
        pivot_tokenizer: Another.
        kind: `first_piece`, the default of a run too, maps every token to the first piece of what the pivot's tokenizer makes
            of it; `exact` maps only tokens that stand for the same bytes.

    Returns:
        Ids of shape [V], for `map_to_pivot`.

    Raises:
        ValueError: For another `kind`.
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

    With `ids=mapped.ids` the rows are what objectives on mapped rows compare with `mapped`.

    Args:
        logits: `logits[n]` predicts `positions.token[n]`: the causal shift is made already.
        positions: Where the rows stand; `positions.select(...)` takes some of the positions of a batch.
        top_k: Number of largest entries, in descending order.
        ids: Or the ids of the entries. An id of -1 is an empty entry, whose log-probability means nothing.

    Raises:
        ValueError: Where both `top_k` and `ids`, or neither, are given.
    """
    if (ids is None) == (top_k == 0):
        raise ValueError("logit_rows takes top_k, for the largest entries, or ids, for chosen ones.")
    rows, logprobs = Head(nn.Identity(), logits.shape[-1]).rows(logits, positions, top_k, ids)
    if ids is None:
        return rows
    return LogitRows.at(positions, logprobs=logprobs, ids=ids, gold=rows.gold, mean=rows.mean, std=rows.std)
