"""Encode rows as the tensors of a shard, and decode them.

`packed` rows hold codes on the scales of `value_scales.py`, each in as few bits as it needs; for K entries, vocabulary V:

    K ids, ceil(log2 V) bits each     the largest entry, 9     K-1 gaps to the entry before, 9 each
    gold, 11     mean, 12     std, 11     bytes of text since the row before, 8

which is 39 bytes at K = 10 and V = 152,064. A gap is taken from the entry before *as it will be read*, so that errors do
not add up: each log-probability is within 0.03 nat (a gap beyond 23 nats, within 7% of it), and entries stay in order.
`float16` and `float32` keep plain numbers, with 4 bytes an id: 72 and 96 bytes at K = 10.
Sampled entries are stored separately and without loss; see `sampled_entries.py`. Hidden states, where rows have them, are
stored as float16, 2 bytes a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.cache import sampled_entries
from fusion.cache.bit_packing import pack, row_bytes, unpack
from fusion.cache.value_scales import GAP, GOLD, MEAN, STD, TOP
from fusion.core.rows import LogitRows

FLOATS = {"float16": torch.float16, "float32": torch.float32}
STEP_BITS = 8
UNKNOWN_PREFIX = (1 << STEP_BITS) - 1  # what a row without a prefix (-1) has for its step


def encode(rows: LogitRows, value_format: str, vocabulary: int) -> dict[str, Tensor]:
    """Return the tensors of a shard, one entry a row; `value_format` is packed, float16 or float32, ids are below `vocabulary`.

    `example` and `token` of a row are not stored: the shard's index gives the one, encoding the example again the other.
    Where a token has more bytes than 8 bits can say, the prefixes of the shard are stored beside the packed rows. Raises
    ValueError for an id outside the vocabulary, for rows that cannot be packed, and for hidden states beyond float16.
    """
    if len(rows) and rows.k and int(rows.ids.max()) >= vocabulary:
        raise ValueError(f"A row names the token {int(rows.ids.max())}, but the vocabulary has {vocabulary} of them.")
    if rows.sample_counts is not None:
        return encode(
            dataclasses.replace(rows.top(0), sample_counts=None), value_format, vocabulary
        ) | sampled_entries.encode(rows, vocabulary)
    prefix = rows.prefix.to(torch.int32).contiguous()
    hidden = {} if rows.hidden is None else {"hidden": _as_float16(rows.hidden)}
    if value_format == "packed":
        steps, fit = _prefix_steps(rows.prefix.numpy(), rows.example.numpy())
        packed = {"packed": torch.from_numpy(_pack(rows, steps, vocabulary))} | hidden
        return packed if fit else packed | {"prefix": prefix}
    return hidden | {
        "logprobs": rows.logprobs.to(FLOATS[value_format]).contiguous(),
        "ids": rows.ids.to(torch.int32).contiguous(),
        "gold": rows.gold.float().contiguous(),
        "mean": rows.mean.to(FLOATS[value_format]).contiguous(),
        "std": rows.std.to(FLOATS[value_format]).contiguous(),
        "prefix": prefix,
    }


def decode(tensors: Mapping[str, Tensor], example: Tensor, k: int, vocabulary: int) -> LogitRows:
    """Return float32 rows from the tensors of whole examples, one after another; `example` numbers each row's example.

    For rows with sampled entries pass `k` = 0; `sampled_entries.decode` gives their entries.
    """
    hidden = tensors["hidden"].float() if "hidden" in tensors else None
    if "packed" in tensors:
        rows = _unpack(tensors["packed"].numpy(), tensors.get("prefix"), example, k, vocabulary)
        return dataclasses.replace(rows, hidden=hidden)
    return LogitRows(
        logprobs=tensors["logprobs"].float(),
        ids=tensors["ids"].long(),
        gold=tensors["gold"].float(),
        mean=tensors["mean"].float(),
        std=tensors["std"].float(),
        prefix=tensors["prefix"].long(),
        example=example,
        hidden=hidden,
    )


def bytes_per_row(k: int, value_format: str, vocabulary: int, hidden_size: int = 0) -> int:
    """Return the bytes of one row on disk; `hidden_size` is 0 for rows without hidden states."""
    numbers = (
        row_bytes(_widths(k, vocabulary))
        if value_format == "packed"
        else (k + 2) * FLOATS[value_format].itemsize + k * 4 + 8
    )
    return numbers + 2 * hidden_size


def _as_float16(hidden: Tensor) -> Tensor:
    half = hidden.half().contiguous()
    if bool(half.isinf().any()):
        raise ValueError(
            f"Hidden states are kept as float16, which ends at 65504, and {int(half.isinf().any(-1).sum())} of these "
            f"{len(half)} go beyond it. Set extract.hidden_states to false and leave out the objectives that read "
            "hidden states."
        )
    return half


def _widths(k: int, vocabulary: int) -> list[int]:
    ids = [max(1, (vocabulary - 1).bit_length())] * k
    entries = [TOP.bits, *[GAP.bits] * (k - 1)] if k else []
    return [*ids, *entries, GOLD.bits, MEAN.bits, STD.bits, STEP_BITS]


def _pack(rows: LogitRows, steps: NDArray[np.int64], vocabulary: int) -> NDArray[np.uint8]:
    statistics = [GOLD.encode(-rows.gold.numpy()), MEAN.encode(-rows.mean.numpy()), STD.encode(rows.std.numpy())]
    columns = [*rows.ids.clamp(min=0).numpy().T, *_entry_codes(-rows.logprobs.numpy().astype(np.float32)), *statistics]
    return pack([*columns, steps], _widths(rows.k, vocabulary))


def _entry_codes(costs: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """Return the codes of -logprob [N, K], ascending: of the first entry, and of each gap to the entry before as decoded."""
    if not costs.shape[1]:
        return []
    empty, first = np.isposinf(costs), costs[:, 0]
    if np.isnan(costs).any():
        raise ValueError(
            f"{int(np.isnan(costs).any(1).sum())} of {len(costs)} rows hold NaN, which no form of a cache can mend."
        )
    if (costs[:, 1:] < costs[:, :-1]).any() or (first[~empty[:, 0]] > TOP.maximum).any():
        raise ValueError(
            f"Rows can be packed where entries are in descending order and the largest is above -{TOP.maximum} nats; "
            "these are not. Set extract.value_format to float16 or float32."
        )
    codes = [np.where(empty[:, 0], TOP.num_codes, TOP.encode(first))]
    read = TOP.decode(codes[0])
    for cost, none in zip(costs.T[1:], empty.T[1:], strict=True):
        codes.append(np.where(none, GAP.num_codes, GAP.encode(cost - read)))
        read = read + GAP.decode(codes[-1])
    return codes


def _unpack(packed: NDArray[np.uint8], prefix: Tensor | None, example: Tensor, k: int, vocabulary: int) -> LogitRows:
    columns = unpack(packed, _widths(k, vocabulary))
    ids, entries, (gold, mean, std, steps) = columns[:k], columns[k : 2 * k], columns[2 * k :]
    costs = np.empty((len(packed), k), np.float32)
    for rank, code in enumerate(entries):
        costs[:, rank] = GAP.decode(code) + costs[:, rank - 1] if rank else TOP.decode(code)
    empty = np.isnan(costs)
    costs[empty] = np.inf
    return LogitRows(
        logprobs=torch.from_numpy(-costs),
        ids=torch.from_numpy(np.where(empty, -1, ids.T.astype(np.int64))),
        gold=torch.from_numpy(-GOLD.decode(gold)),
        mean=torch.from_numpy(-MEAN.decode(mean)),
        std=torch.from_numpy(STD.decode(std)),
        prefix=torch.from_numpy(_prefixes_from_steps(steps, example.numpy())) if prefix is None else prefix.long(),
        example=example,
    )


def _prefix_steps(prefix: NDArray[np.int64], example: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """Return the bytes since the last row of the example with a known prefix, and whether 8 bits can hold all of them."""
    steps = np.full(len(prefix), UNKNOWN_PREFIX)
    known = np.flatnonzero(prefix >= 0)
    first = np.ones(len(known), bool)
    first[1:] = example[known[1:]] != example[known[:-1]]
    steps[known] = np.where(first, prefix[known], np.diff(prefix[known], prepend=0))
    fit = bool(((steps[known] >= 0) & (steps[known] < UNKNOWN_PREFIX)).all())
    return (steps if fit else np.zeros_like(steps)), fit


def _prefixes_from_steps(steps: NDArray[np.integer], example: NDArray[np.int64]) -> NDArray[np.int64]:
    """Undo `_prefix_steps`."""
    unknown = steps == UNKNOWN_PREFIX
    running = np.where(unknown, 0, steps).astype(np.int64).cumsum()
    before = np.concatenate([[0], running[:-1]])
    first = np.flatnonzero(np.diff(example, prepend=-1))
    start = np.repeat(before[first], np.diff(first, append=len(steps)))
    return np.where(unknown, -1, running - start)
