"""Rows from prompt log-probabilities, the form in which vLLM and OpenAI-compatible servers return them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded

TokenLogprobs = Mapping[int, float]
"""Token id -> natural-log probability, of some of the tokens that could follow at one position."""


def rows_from_logprobs(
    text: Encoded, logprobs_per_token: Sequence[TokenLogprobs], k: int, vocabulary: int, example: int = 0
) -> LogitRows:
    """Return the rows of one text from the log-probabilities at each of its response positions.

    The K most likely become the entries; ids from `vocabulary` on belong to no token (padded heads) and are left out, so
    their probability counts as mass outside the entries. `gold` is NaN where the token that follows is not listed; mean
    and standard deviation are always NaN. Raises ValueError where there are not as many lists as rows.
    """
    if len(logprobs_per_token) != text.num_rows:
        raise ValueError(
            f"The response has {text.num_rows} tokens, and {len(logprobs_per_token)} of them came back with log-probabilities."
        )
    logprobs = torch.full((text.num_rows, k), -torch.inf)
    ids = torch.full((text.num_rows, k), -1)
    token = text.input_ids[text.start :]
    for row, entries in enumerate(logprobs_per_token):
        best = sorted(((value, id) for id, value in entries.items() if id < vocabulary), key=lambda e: -e[0])[:k]
        if best:
            values, chosen = zip(*best, strict=True)
            logprobs[row, : len(best)] = torch.tensor(values)
            ids[row, : len(best)] = torch.tensor(chosen)
    gold = torch.tensor([entries.get(id, torch.nan) for entries, id in zip(logprobs_per_token, token, strict=True)])
    unknown = torch.full_like(gold, torch.nan)
    prefix, number = torch.tensor(text.prefix), torch.full((text.num_rows,), example)
    return LogitRows(logprobs, ids, gold, unknown, unknown, prefix=prefix, example=number, token=torch.tensor(token))
