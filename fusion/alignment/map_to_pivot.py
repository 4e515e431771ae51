"""From matched rows to rows that can be compared token by token: what a source says, in the pivot's tokens.

Both rows of a pair have read the same bytes and predict the same text, each in tokens of its own. Let the pivot's next token be
`vi`, where its tokenizer writes `video` as `vi|deo`. Three cases, by the tokens of the source:

    the source's next token ends where the pivot's does, or       its entries are mapped by the vocabulary map (by default to
    after it: `vi` or `video`                                      their first piece in the pivot's tokens)
    it ends before, and a later one of its tokens ends with        its entries would teach the pivot to write `v` here; but it
    the pivot's: `v` + `i`                                         has a probability for the pivot's token, the product of
                                                                   both, and that is the row's only entry
    none of its tokens ends where the pivot's does: `v` + `ideo`   nothing can be said, and the row is left out

The pivot's row before `deo` has no pair at all with a source that wrote `video` in one token, for none of its rows has read
`vi`: no term compares it with that source, and only the text's own term (cross-entropy) counts there.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fusion.alignment.token_map import map_entries
from fusion.core.rows import LogitRows, MappedRows, Pairs, Positions
from fusion.core.tail import log_left_over

END_OF_EXAMPLE = torch.iinfo(torch.int64).max


def map_to_pivot(
    pivot: Positions, source: LogitRows, pairs: Pairs, vocabulary_map: Int[Tensor, " V"]
) -> tuple[Int[Tensor, " C"], MappedRows]:
    """Map the source's rows of those pairs that can be compared token by token into the pivot's vocabulary.

    Where the source writes the pivot's next token in several tokens, its row has that token as its one entry, with the product
    of their probabilities. The last row of an example predicts the end of the turn, beyond its text; so it compares with
    another last row only.

    Args:
        pivot: The pivot's rows or positions, with `token`, the ids that follow.
        source: The source's rows, ids in its own vocabulary.
        pairs: From `align`.
        vocabulary_map: From `vocabulary_map`: the pivot's id of each of the source's, -1 for none.

    Returns:
        The numbers of the C pairs that can be compared (places in `pairs`), and the mapped rows, one for each.

    Raises:
        ValueError: Where the pivot's rows have no `token`.
    """
    if pivot.token is None:
        raise ValueError(
            "map_to_pivot needs the pivot's tokens, which rows of a cache leave out: give the positions of a batch, such as "
            "targets.positions of FusionCollator, or Positions(prefix, example, token)."
        )
    pivot_end, source_end = token_ends(pivot)[pairs.pivot], token_ends(source)[pairs.source]
    reaches = (
        (pivot_end >= 0) & (source_end >= pivot_end) & ((pivot_end == END_OF_EXAMPLE) | (source_end < END_OF_EXAMPLE))
    )
    until = _next_match(pivot, pairs)
    product = text_logprob(source, pairs.source, until)
    in_pieces = ~reaches & (until >= 0) & ~product.isnan()
    chosen = (reaches | in_pieces).nonzero()[:, 0]
    rows = source.select(pairs.source[chosen])
    token = pivot.token[pairs.pivot[chosen]]
    ids, logprobs, counts = map_entries(rows, vocabulary_map)
    ids, logprobs, counts = _single_entry(ids, logprobs, counts, in_pieces[chosen], token, product[chosen])
    return chosen, MappedRows(
        logprobs=logprobs,
        ids=ids,
        sample_counts=counts,
        pivot_token_logprob=_pivot_token_logprob(ids, logprobs, rows.gold, token),
        mean=rows.mean,
        std=rows.std,
        hidden=rows.hidden,
        prefix=rows.prefix,
        example=rows.example,
        token=token,
    )


def token_ends(rows: Positions) -> Int[Tensor, " N"]:
    """Bytes of text consumed after each row's token: the next row's prefix; `END_OF_EXAMPLE` for the last of an example."""
    return torch.where(rows.is_last, END_OF_EXAMPLE, rows.prefix.roll(-1).long())


def text_logprob(source: LogitRows, start: Int[Tensor, " M"], until: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Log-probability, in nats, of the text from row `start` to row `until`: the sum of `gold` over the rows between.

    NaN where one of these rows does not know it.
    """
    # a difference of running sums: a NaN among them would spread to all rows behind it
    unknown = source.gold.isnan()
    gold = source.gold.double().masked_fill(unknown, 0)
    running, gaps = (torch.cat([each.new_zeros(1), each.cumsum(0)]) for each in (gold, unknown.long()))
    total = running[until.clamp(min=0)] - running[start]
    return total.masked_fill(gaps[until.clamp(min=0)] > gaps[start], torch.nan).to(source.logprobs.dtype)


def _next_match(pivot: Positions, pairs: Pairs) -> Int[Tensor, " M"]:
    """The source's row matched with the pivot row after each pair's, in the same example; -1 where there is none."""
    match = torch.full((len(pivot) + 1,), -1, device=pairs.pivot.device)
    match[pairs.pivot] = pairs.source
    return torch.where(pivot.is_last[pairs.pivot], -1, match[pairs.pivot + 1])


def _single_entry(
    ids: Int[Tensor, "C K"],
    logprobs: Float[Tensor, "C K"],
    counts: Int[Tensor, "C K"] | None,
    where: Bool[Tensor, " C"],
    token: Int[Tensor, " C"],
    logprob: Float[Tensor, " C"],
) -> tuple[Int[Tensor, "C K"], Float[Tensor, "C K"], Int[Tensor, "C K"] | None]:
    """Replace the entries of the rows marked by `where` with `token` as the only one."""
    first = torch.arange(ids.shape[1], device=where.device) == 0
    ids = torch.where(where[:, None], torch.where(first, token[:, None], -1), ids)
    logprobs = torch.where(where[:, None], torch.where(first, logprob[:, None], -torch.inf), logprobs)
    return ids, logprobs, None if counts is None else counts.masked_fill(where[:, None], 0)


def _pivot_token_logprob(
    ids: Int[Tensor, "C K"], logprobs: Float[Tensor, "C K"], gold: Float[Tensor, " C"], token: Int[Tensor, " C"]
) -> Float[Tensor, " C"]:
    """What the source gives to the pivot's token: its entry; else `gold`, that of its own next token, which begins with it.

    The latter is a lower bound, and only where the source's token is not among the entries, for what it has is left over
    then. NaN where neither is known.
    """
    is_token = (ids == token[:, None]) & (ids >= 0)
    smallest = logprobs.masked_fill(logprobs.isneginf(), torch.inf)
    smallest = torch.cat([smallest, torch.full_like(gold[:, None], torch.inf)], dim=1).amin(-1)
    outside = gold.minimum(log_left_over(logprobs)).where(gold < smallest, torch.nan)
    entry = logprobs.masked_fill(~is_token, -torch.inf).logsumexp(-1)
    return torch.where(is_token.any(-1), entry, outside)
