"""Log-probabilities of whole answers, as the rows of a cache add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fusion.alignment import gold_of_stop
from fusion.cache import Cache

AT_ONCE = 64
"""Answers whose rows are looked at together."""


@dataclass(frozen=True)
class AnswerSums:
    """What one model says of answers, each with its end."""

    logprobs: Sequence[float]
    """Log-probability of each, in nats."""
    tokens: Sequence[int]
    """How many of its tokens each takes."""


def read_answer_sums(cache: Cache, ids: Sequence[str], stop_ids: Sequence[int] = ()) -> AnswerSums:
    """Add up the rows of the examples with these content ids; an answer's end is whatever token of `stop_ids` says so."""
    logprobs: list[float] = []
    tokens: list[int] = []
    for begin in range(0, len(ids), AT_ONCE):
        some = ids[begin : begin + AT_ONCE]
        rows = gold_of_stop(cache.rows(some), stop_ids)
        example = rows.example.long()
        # in float64: a sum of float32 depends on who is read beside it
        logprobs += torch.zeros(len(some), dtype=torch.float64).index_add(0, example, rows.gold.double()).tolist()
        tokens += torch.bincount(example, minlength=len(some)).tolist()
    return AnswerSums(logprobs, tokens)
