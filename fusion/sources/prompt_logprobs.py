"""Rows from lists of log-probabilities, which is what engines and servers give for the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded

TokenLogprobs = Mapping[int, float]
"""Token id -> natural-log probability, of some of the tokens that could stand at one place."""


def rows_from_logprobs(
    text: Encoded, listed: Sequence[TokenLogprobs], k: int, vocabulary: int, example: int = 0
) -> LogitRows:
    """The rows of one text from what is listed for each of its rows' tokens.

    The K most likely become the entries; ids from `vocabulary` on belong to no token (padded heads) and are left out, so
    their probability counts as mass outside the entries. `gold` is NaN where the token that follows is not listed; mean
    and standard deviation are always NaN. Raises ValueError where there are not as many lists as rows.
    """
    if len(listed) != text.num_rows:
        raise ValueError(
            f"The response has {text.num_rows} tokens, and {len(listed)} of them came back with log-probabilities."
        )
    logprobs = torch.full((text.num_rows, k), -torch.inf)
    ids = torch.full((text.num_rows, k), -1)
    token = text.input_ids[text.start :]
    for row, entries in enumerate(listed):
        best = sorted(((value, id) for id, value in entries.items() if id < vocabulary), key=lambda e: -e[0])[:k]
        if best:
            values, chosen = zip(*best, strict=True)
            logprobs[row, : len(best)] = torch.tensor(values)
            ids[row, : len(best)] = torch.tensor(chosen)
    gold = torch.tensor([entries.get(id, torch.nan) for entries, id in zip(listed, token, strict=True)])
    unknown = torch.full_like(gold, torch.nan)
    prefix, number = torch.tensor(text.prefix), torch.full((text.num_rows,), example)
    return LogitRows(logprobs, ids, gold, unknown, unknown, prefix=prefix, example=number, token=torch.tensor(token))
