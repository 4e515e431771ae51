"""Batches of texts: grouped by length, padded or packed, with the positions of their rows.

The causal shift happens here and nowhere else, in `_causal_shift`: row r of a text is read at its sequence position
`start - 1 + r`, whose logits predict `input_ids[start + r]`. Everything downstream indexes rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fusion.core.rows import Positions
from fusion.data.encode import Encoded


def length_grouped_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield indices grouped by length, at most `tokens` a batch with padding; longest first, to run out of memory at once."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def pad_texts(texts: Sequence[Encoded], device: Any, pad_id: int = 0) -> tuple[dict[str, Tensor], Tensor, Positions]:
    """Return right-padded model inputs, the index of the hidden state that predicts each row, and the rows' `Positions`."""
    ids, position, begin = _lay_out(texts, [[b] for b in range(len(texts))], pad_id)
    inputs = {"input_ids": ids.to(device), "attention_mask": (position >= 0).long().to(device)}
    return inputs, *_causal_shift(texts, ids, begin, device)


def pack_texts(
    texts: Sequence[Encoded], device: Any, length: int, pad_id: int = 0
) -> tuple[dict[str, Tensor], Tensor, Positions]:
    """Do the same as `pad_texts` with several texts packed into each sequence of at most `length` tokens.

    A longer text has a sequence of its own. Instead of a mask the model gets `position_ids` that restart with each text,
    from which transformers keeps the texts apart. The rows are those of `pad_texts`, in the same order.
    """
    ids, position, begin = _lay_out(
        texts, first_fit_decreasing([len(text.input_ids) for text in texts], length), pad_id
    )
    inputs = {"input_ids": ids.to(device), "position_ids": position.clamp(min=0).to(device)}
    return inputs, *_causal_shift(texts, ids, begin, device)


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return indices in groups of at most `capacity` by first-fit decreasing bin packing."""
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
    """Return ids and positions in their text, [lines, T] (-1 for padding), and the flattened index where each text begins."""
    longest = max(sum(len(texts[i].input_ids) for i in line) for line in lines)
    ids, position = torch.full((len(lines), longest), pad_id), torch.full((len(lines), longest), -1)
    begin = [0] * len(texts)
    for number, line in enumerate(lines):
        start = 0
        for i in line:
            end = start + len(texts[i].input_ids)
            ids[number, start:end] = torch.tensor(texts[i].input_ids)
            position[number, start:end] = torch.arange(end - start)
            begin[i], start = number * longest + start, end
    return ids, position, begin


def _causal_shift(texts: Sequence[Encoded], ids: Tensor, begin: Sequence[int], device: Any) -> tuple[Tensor, Positions]:
    """Return the flattened index of each row, and where the rows stand in their texts.

    The causal shift: row r of a text is read at position start - 1 + r, whose logits predict token start + r.
    """
    at = torch.cat([torch.arange(t.start - 1, len(t.input_ids) - 1) + b for t, b in zip(texts, begin, strict=True)])
    positions = Positions(
        token=ids.flatten()[at + 1],
        prefix=torch.tensor([p for text in texts for p in text.prefix]),
        example=torch.tensor([b for b, text in enumerate(texts) for _ in text.prefix]),
    )
    return at.to(device), positions.to(device)
