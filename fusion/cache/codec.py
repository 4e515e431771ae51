"""Rows to the tensors of a shard and back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fusion.rows import LogitRows

VALUES = {"float16": torch.float16, "float32": torch.float32}


def encode(rows: LogitRows, values: str) -> dict[str, Tensor]:
    """Tensors of a shard. `values` is the type of the log-probabilities: float32, or float16 (error below 2^-11 of the value).

    The example and the following token of each row are not stored: the shard's index tells the one, the data set the other.
    """
    return {
        "logprobs": rows.logprobs.to(VALUES[values]).contiguous(),
        "ids": rows.ids.to(torch.int32).contiguous(),
        "gold": rows.gold.float().contiguous(),
        "mean": rows.mean.to(VALUES[values]).contiguous(),
        "std": rows.std.to(VALUES[values]).contiguous(),
        "prefix": rows.prefix.to(torch.int32).contiguous(),
    }


def decode(read: Callable[[str], Tensor], example: Tensor) -> LogitRows:
    """Float32 rows from what `read` gives for each name; `example` is the number of each row's example."""
    return LogitRows(
        logprobs=read("logprobs").float(),
        ids=read("ids").long(),
        gold=read("gold").float(),
        mean=read("mean").float(),
        std=read("std").float(),
        prefix=read("prefix").long(),
        example=example,
    )


def bytes_per_row(k: int, values: str) -> int:
    """Bytes that one row takes on disk."""
    return (k + 2) * VALUES[values].itemsize + k * 4 + 8
