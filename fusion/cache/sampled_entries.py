"""Entries that were drawn at random, on disk: as many as a row has, each an id and a 7-bit count.

    drawn    the entries of all rows, one after another: ceil(log2 V) bits of id, 7 of count, whole bytes
    worth    log of p / q of each entry in float16, only where ids were not drawn by p itself (tau other than 1)
    unique   how many entries each row has

The log-probabilities follow: log of count / draws, plus worth. Statistics of the row lie beside these as in any shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fusion.cache.bit_packing import pack, row_bytes, unpack
from fusion.core.rows import LogitRows

COUNT_BITS = 7
RAGGED = ("drawn", "worth")
"""Tensors with one line an entry; all others have one line a row."""
TENSORS = (*RAGGED, "unique")


def encode(rows: LogitRows, vocabulary: int) -> dict[str, Tensor]:
    """The tensors above. Raises ValueError for counts that 7 bits do not hold."""
    assert rows.sample_counts is not None
    there = rows.sample_counts > 0
    counts, ids = rows.sample_counts[there].numpy(), rows.ids[there].numpy()
    if len(counts) and counts.max() >= 1 << COUNT_BITS:
        raise ValueError(
            f"An id was drawn {counts.max()} times at one position, and {COUNT_BITS} bits hold 127: draw at most 127 "
            "(extract.sampling.draws)."
        )
    found = {"drawn": torch.from_numpy(pack([ids, counts], _widths(vocabulary))), "unique": there.sum(-1).byte()}
    worth = (rows.logprobs - _log_share(rows.sample_counts))[there]
    return found if bool((worth.abs() < 1e-4).all()) else found | {"worth": worth.half()}


def decode(parts: Sequence[Mapping[str, Tensor]], vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """logprobs, ids and counts of the rows of several examples, as wide as the widest of them needs."""
    unique = torch.cat([part["unique"] for part in parts]).long()
    drawn = torch.cat([part["drawn"] for part in parts])
    ids, counts = (torch.from_numpy(column.astype(np.int64)) for column in unpack(drawn.numpy(), _widths(vocabulary)))
    there = torch.arange(max(1, int(unique.max()) if len(unique) else 0)) < unique[:, None]
    sampled = torch.zeros(there.shape, dtype=torch.long).masked_scatter(there, counts)
    worth = torch.cat([part["worth"].float() if "worth" in part else torch.zeros(len(part["drawn"])) for part in parts])
    added = torch.zeros(there.shape).masked_scatter(there, worth)
    return _log_share(sampled) + added, torch.full(there.shape, -1).masked_scatter(there, ids), sampled


def bytes_per_row(entries: int | float, vocabulary: int) -> float:
    """Bytes that a row of so many different ids takes, without its statistics, at tau = 1."""
    return float(entries * row_bytes(_widths(vocabulary)) + 1)


def _widths(vocabulary: int) -> list[int]:
    return [max(1, (vocabulary - 1).bit_length()), COUNT_BITS]


def _log_share(sampled: Tensor) -> Tensor:
    """log of count / draws in float32, -inf where the count is 0."""
    return (sampled.double().log() - sampled.sum(-1, keepdim=True).double().log()).float()
