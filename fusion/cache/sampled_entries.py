"""Encode the entries of rows made by random sampling: ragged, each an id and a 7-bit count.

    drawn    the entries of all rows, one after another: ceil(log2 V) bits of id, 7 of count, whole bytes
    worth    log of p / q of each entry in float16, only where tau is not 1 (ids were drawn by p^tau)
    unique   how many entries each row has

So a log-probability is log(count / draws) + worth. The other fields of the rows are stored as in any shard.
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
"""Tensors with one line per entry; all others have one line per row."""
TENSORS = (*RAGGED, "unique")


def encode(rows: LogitRows, vocabulary: int) -> dict[str, Tensor]:
    """Return the tensors above. Raises ValueError for counts that 7 bits do not hold."""
    assert rows.sample_counts is not None
    filled = rows.sample_counts > 0
    counts, ids = rows.sample_counts[filled].numpy(), rows.ids[filled].numpy()
    if len(counts) and counts.max() >= 1 << COUNT_BITS:
        raise ValueError(
            f"An id was drawn {counts.max()} times at one position, and {COUNT_BITS} bits hold 127: draw at most 127 "
            "(extract.sampling.draws)."
        )
    tensors = {"drawn": torch.from_numpy(pack([ids, counts], _widths(vocabulary))), "unique": filled.sum(-1).byte()}
    log_weight = (rows.logprobs - _log_share(rows.sample_counts))[filled]
    return tensors if bool((log_weight.abs() < 1e-4).all()) else tensors | {"worth": log_weight.half()}


def decode(parts: Sequence[Mapping[str, Tensor]], vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return logprobs, ids and counts of the rows of several examples, padded to the widest."""
    unique = torch.cat([part["unique"] for part in parts]).long()
    packed = torch.cat([part["drawn"] for part in parts])
    ids, counts = (torch.from_numpy(column.astype(np.int64)) for column in unpack(packed.numpy(), _widths(vocabulary)))
    filled = torch.arange(max(1, int(unique.max()) if len(unique) else 0)) < unique[:, None]
    sampled = torch.zeros(filled.shape, dtype=torch.long).masked_scatter(filled, counts)
    log_weight = torch.cat([part.get("worth", torch.zeros(len(part["drawn"]))).float() for part in parts])
    added = torch.zeros(filled.shape).masked_scatter(filled, log_weight)
    return _log_share(sampled) + added, torch.full(filled.shape, -1).masked_scatter(filled, ids), sampled


def bytes_per_row(entries: int | float, vocabulary: int) -> float:
    """Return the bytes of the entries of a row with this many distinct ids, at tau = 1."""
    return float(entries * row_bytes(_widths(vocabulary)) + 1)


def _widths(vocabulary: int) -> list[int]:
    return [max(1, (vocabulary - 1).bit_length()), COUNT_BITS]


def _log_share(sampled: Tensor) -> Tensor:
    """Return log(count / draws) in float32, -inf where the count is 0."""
    return (sampled.double().log() - sampled.sum(-1, keepdim=True).double().log()).float()
