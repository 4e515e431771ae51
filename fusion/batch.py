"""Texts side by side: batches of like length, padding, and the only place where the causal shift happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fusion.encode import Encoded
from fusion.rows import LogitRows


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices grouped by length, longest first (so that memory runs out at once or never), each at most `tokens` padded."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def pad(texts: Sequence[Encoded], device: Any, pad_id: int = 0) -> tuple[dict[str, Tensor], Tensor, LogitRows]:
    """Model inputs padded on the right, where each row lies in the flattened [B * T] positions, and the rows without numbers.

    The causal shift happens here and nowhere else: row r of a text lies at position start - 1 + r, whose logits predict
    token start + r.
    """
    longest = max(len(text.input_ids) for text in texts)
    ids = torch.full((len(texts), longest), pad_id)
    mask = torch.zeros_like(ids)
    for b, text in enumerate(texts):
        ids[b, : len(text.input_ids)] = torch.tensor(text.input_ids)
        mask[b, : len(text.input_ids)] = 1
    at = torch.cat([torch.arange(t.start - 1, len(t.input_ids) - 1) + b * longest for b, t in enumerate(texts)])
    about = skeleton(
        token=ids.flatten()[at + 1],
        prefix=torch.tensor([p for text in texts for p in text.prefix]),
        example=torch.tensor([b for b, text in enumerate(texts) for _ in text.prefix]),
    )
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}, at.to(device), about.to(device)


def skeleton(token: Tensor, prefix: Tensor, example: Tensor) -> LogitRows:
    """Rows that know their place but no numbers yet: no entries, NaN elsewhere."""
    nan = torch.full(token.shape, torch.nan)
    return LogitRows(
        nan.new_empty(len(token), 0), token.new_empty(len(token), 0), nan, nan, nan, prefix, example, token
    )
