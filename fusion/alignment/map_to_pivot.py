"""From matched rows to entries that token identity can be compared on: what a source says in the pivot's tokens.

A pair of rows has read the same bytes and predicts the same text, but in tokens of its own. Three cases:

    the source's token ends where the pivot's does, or after it   its entries, each mapped to its first piece in the pivot's
                                                                   tokens, are what the pivot would say
    it ends before, and a later one of its tokens ends with the    its entries would teach the pivot another spelling (`v` +
    pivot's                                                        `ido` where the pivot writes `vi` + `do`); but it has
                                                                   a probability for the pivot's token: the product
    no token of its ends with the pivot's                          nothing can be said
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Int
from torch import Tensor

from fusion.alignment.token_map import map_rows
from fusion.core.rows import LogitRows, Pairs
from fusion.core.tail import log_left_over

END = torch.iinfo(torch.int64).max


def translate(
    pivot: LogitRows, source: LogitRows, pairs: Pairs, vocabulary_map: Int[Tensor, " V"]
) -> tuple[Int[Tensor, " C"], LogitRows]:
    """Which pairs (by their place in `pairs`) can be compared, and the source's rows there, ids in the pivot's vocabulary.

    In the second case above a row has one entry, the pivot's token, and all other mass is left over. The last row of an
    example reaches beyond its text, for it predicts the end of the turn; so it compares with another last row only.
    `token` of the rows is the pivot's, and `gold` the source's log-probability of that; see `_gold`. Needs `pivot.token`.
    """
    assert pivot.token is not None
    ours, theirs = ends(pivot)[pairs.pivot], ends(source)[pairs.source]
    reaches = (ours >= 0) & (theirs >= ours) & ((ours == END) | (theirs < END))
    until = _next_match(pivot, pairs)
    spelled = ~reaches & (until >= 0)
    chosen = (reaches | spelled).nonzero()[:, 0]
    rows = map_rows(source.select(pairs.source[chosen]), vocabulary_map)
    known, token = likelihood(source, pairs.source, until)[chosen], pivot.token[pairs.pivot[chosen]]
    rows = _only(rows, spelled[chosen], token, known)
    return chosen, dataclasses.replace(rows, token=token, gold=_gold(rows, token))


def ends(rows: LogitRows) -> Int[Tensor, " N"]:
    """Bytes of text consumed after each row's token: the next row's prefix; `END` for the last row of an example."""
    return torch.where(is_last(rows), END, rows.prefix.roll(-1).long())


def likelihood(source: LogitRows, start: Int[Tensor, " M"], until: Int[Tensor, " M"]) -> Tensor:
    """Log-probability, in nats, of the text from row `start` to row `until`: the sum of `gold` over the rows between."""
    running = torch.cat([source.gold.new_zeros(1, dtype=torch.float64), source.gold.double().cumsum(0)])
    return (running[until.clamp(min=0)] - running[start]).to(source.logprobs.dtype)


def _next_match(pivot: LogitRows, pairs: Pairs) -> Int[Tensor, " M"]:
    """The source's row matched with the pivot row after each pair's, in the same example; -1 where there is none."""
    match = torch.full((len(pivot) + 1,), -1, device=pairs.pivot.device)
    match[pairs.pivot] = pairs.source
    return torch.where(is_last(pivot)[pairs.pivot], -1, match[pairs.pivot + 1])


def is_last(rows: LogitRows) -> Tensor:
    """Whether each row is the last of its example: bool [N]."""
    last = torch.ones(len(rows), dtype=torch.bool, device=rows.prefix.device)
    last[:-1] = rows.example[1:] != rows.example[:-1]
    return last


def _only(rows: LogitRows, where: Tensor, token: Tensor, logprob: Tensor) -> LogitRows:
    """`rows`, with `token` as the only entry of those marked by `where`."""
    first = torch.arange(rows.k, device=where.device) == 0
    ids = torch.where(where[:, None], torch.where(first, token[:, None], -1), rows.ids)
    alone = torch.where(first, logprob[:, None], -torch.inf)
    sampled = None if rows.sampled is None else rows.sampled.masked_fill(where[:, None], 0)
    logprobs = torch.where(where[:, None], alone, rows.logprobs)
    return dataclasses.replace(rows, ids=ids, logprobs=logprobs, sampled=sampled)


def _gold(rows: LogitRows, token: Tensor) -> Tensor:
    """Log-probability of the pivot's token: its entry; else that of the source's own following token, which begins with it.

    The latter is a lower bound, and only where that token is not among the entries, for what it has is left over then. NaN
    where neither is known.
    """
    is_token = (rows.ids == token[:, None]) & (rows.ids >= 0)
    smallest = rows.logprobs.masked_fill(rows.logprobs.isneginf(), torch.inf)
    smallest = torch.cat([smallest, torch.full_like(rows.gold[:, None], torch.inf)], dim=1).amin(-1)
    outside = rows.gold.minimum(log_left_over(rows.logprobs)).where(rows.gold < smallest, torch.nan)
    entry = rows.logprobs.masked_fill(~is_token, -torch.inf).logsumexp(-1)
    return torch.where(is_token.any(-1), entry, outside)
