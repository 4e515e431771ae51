"""Texts side by side: batches of like length, padding and packing, and the only place where the causal shift happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fusion.core.rows import Positions
from fusion.data.encode import Encoded


def length_grouped_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices grouped by length, longest first (so that memory runs out at once or never), each at most `tokens` padded."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def pad_texts(texts: Sequence[Encoded], device: Any, pad_id: int = 0) -> tuple[dict[str, Tensor], Tensor, Positions]:
    """Pad on the right: model inputs, where each row lies in the flattened [B * T] positions, and where in its text."""
    ids, position, begin = _lay_out(texts, [[b] for b in range(len(texts))], pad_id)
    inputs = {"input_ids": ids.to(device), "attention_mask": (position >= 0).long().to(device)}
    return inputs, *_rows(texts, ids, begin, device)


def pack_texts(
    texts: Sequence[Encoded], device: Any, length: int, pad_id: int = 0
) -> tuple[dict[str, Tensor], Tensor, Positions]:
    """`pad` with several texts in a line of at most `length` tokens (a longer text has a line of its own).

    Instead of a mask the model gets `position_ids` that start over with each text, from which transformers tells the
    texts apart. The rows are those of `pad`, in the same order.
    """
    ids, position, begin = _lay_out(
        texts, first_fit_decreasing([len(text.input_ids) for text in texts], length), pad_id
    )
    inputs = {"input_ids": ids.to(device), "position_ids": position.clamp(min=0).to(device)}
    return inputs, *_rows(texts, ids, begin, device)


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices in as few groups as first-fit decreasing finds, each of at most `capacity` together."""
    groups: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = next((g for g, free in enumerate(room) if free >= lengths[i]), None)
        if fits is None:
            fits = len(groups)
            groups.append([])
            room.append(capacity)
        groups[fits].append(i)
        room[fits] -= lengths[i]
    return groups


def _lay_out(texts: Sequence[Encoded], lines: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor, list[int]]:
    """Ids and places within their text, [lines, T], -1 for padding; and where each text begins in them, flattened."""
    longest = max(sum(len(texts[i].input_ids) for i in line) for line in lines)
    ids, position = torch.full((len(lines), longest), pad_id), torch.full((len(lines), longest), -1)
    begin = [0] * len(texts)
    for number, line in enumerate(lines):
        at = 0
        for i in line:
            end = at + len(texts[i].input_ids)
            ids[number, at:end] = torch.tensor(texts[i].input_ids)
            position[number, at:end] = torch.arange(end - at)
            begin[i], at = number * longest + at, end
    return ids, position, begin


def _rows(texts: Sequence[Encoded], ids: Tensor, begin: Sequence[int], device: Any) -> tuple[Tensor, Positions]:
    """Where the rows of each text lie, and where the rows stand.

    The causal shift happens here and nowhere else: row r of a text lies at its token start - 1 + r, whose logits predict
    its token start + r.
    """
    at = torch.cat([torch.arange(t.start - 1, len(t.input_ids) - 1) + b for t, b in zip(texts, begin, strict=True)])
    about = Positions(
        token=ids.flatten()[at + 1],
        prefix=torch.tensor([p for text in texts for p in text.prefix]),
        example=torch.tensor([b for b, text in enumerate(texts) for _ in text.prefix]),
    )
    return at.to(device), about.to(device)
