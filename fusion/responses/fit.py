"""How well a response fits the pivot: what the pivot's own rows say of each response, before it has learned anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fusion.core.rows import LogitRows

RANKS = 100
"""Ranks from here on count alike, as in the paper: so many entries of a row tell all ranks that matter."""


class PivotFit(NamedTuple):
    """What the pivot makes of a response, without the end of turn."""

    logprob: float
    """Its log-probability in nats per byte, never above 0: the larger, the better it fits."""
    rank_surprisal: float
    """Rank-surprisal ratio, see `rank_surprisal_ratios`: the smaller, the better it fits."""


TOO_LONG = PivotFit(-math.inf, math.inf)
"""Of a response that the pivot would see only a part of: it fits worse than any that it reads whole."""


def logprobs_per_byte(rows: LogitRows, sizes: Sequence[int]) -> list[float]:
    """Return the log-probability of each text in nats per byte; `sizes` are their bytes, and rows behind them do not count."""
    size = torch.tensor(sizes)
    inside = _inside(rows, size)
    return (_sums(rows.gold[inside], rows.example[inside], len(sizes)) / size).tolist()


def rank_surprisal_ratios(rows: LogitRows, sizes: Sequence[int]) -> list[float]:
    """Return the rank-surprisal ratio (RSR) of each text: sum of min(rank, 100) / sum of -log p, over its tokens, above 0.

    A token's rank is 1 if the model finds none likelier. Small where tokens are unlikely (there is something to learn) and yet
    among the first that come to the model's mind. It is infinite for a text of which the model is certain, and for one that it
    cannot say. `rows` need `RANKS` entries, or all that there are. Source: arXiv:2601.14249.
    """
    assert rows.token is not None
    inside, size = _inside(rows, torch.tensor(sizes)), len(sizes)
    likelier = (rows.logprobs > rows.gold[:, None]) & (rows.ids != rows.token[:, None])  # by id: gold may be rounded
    rank = (1 + likelier.sum(1)).clamp(max=RANKS)
    ranks = _sums(rank[inside], rows.example[inside], size)
    surprisal = -_sums(rows.gold[inside], rows.example[inside], size)
    limitless = surprisal.isinf() | (surprisal <= 0)  # rounding can put a log-probability a hair above 0
    return torch.where(limitless, torch.inf, ranks / surprisal).tolist()


def _inside(rows: LogitRows, size: Int[Tensor, " E"]) -> Bool[Tensor, " N"]:
    """Whether each row predicts a part of its text, and not what ends it."""
    return rows.prefix < size[rows.example]


def _sums(values: Tensor, example: Int[Tensor, " N"], count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.float64).index_add(0, example, values.double())
