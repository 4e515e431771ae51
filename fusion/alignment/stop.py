"""What a model says of the end of an answer, whichever of its tokens says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from fusion.core.rows import LogitRows


def gold_of_stop(rows: LogitRows, stop_ids: Sequence[int]) -> LogitRows:
    """Return the rows with `gold` of the last row of each example summed over all entries that say that the answer is over.

    A model whose answers end at a line break may end them with two line breaks in one token: read at the one token alone it
    seems to want to go on, and a pivot that learned from that would never stop. Rows without entries stay as they are; so do
    those whose own token is likelier than the entries together, which can be where they were rounded.
    """
    if not len(rows) or not stop_ids or not rows.k:
        return rows
    is_stop = torch.isin(rows.ids, torch.tensor(stop_ids, device=rows.ids.device))
    stop = rows.logprobs.masked_fill(~is_stop, -torch.inf).logsumexp(-1)
    return dataclasses.replace(rows, gold=torch.where(rows.is_last, torch.fmax(rows.gold, stop), rows.gold))
