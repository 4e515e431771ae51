"""Several short texts in one line of a batch: whether a model keeps them apart, and how long a line may be."""

from __future__ import annotations

import sys
from typing import Any

import torch

from fusion.data.batching import pack_texts, pad_texts
from fusion.data.encode import Encoded
from fusion.models.head import hidden_states, unwrap_model


def max_line_length(model: Any, max_length: int) -> int:
    """Choose `FusionCollator.line_length`: any number where attention does no work across texts, else `max_length` tokens.

    Flash attention takes the lengths of the texts in one line; a masked attention computes the whole square of each line.
    """
    return sys.maxsize if "flash" in str(model.config._attn_implementation) else max_length


@torch.no_grad()
def check_packed_texts_stay_apart(model: Any, tolerance: float | None = None) -> None:
    """Compare two packed texts with the same texts apart; ValueError where a hidden state differs.

    transformers tells packed texts apart by their position ids, but not for every architecture (recurrent ones, for
    example, carry their state over). `model` may be wrapped for distributed training. `tolerance` is relative to the
    largest state; by default 1e-4 in float32, 0.05 in 16 bits.
    """
    device, inside = next(model.parameters()).device, unwrap_model(model)
    texts = [Encoded([(7 * i + n) % 50 for i in range(n)], 1, list(range(n - 1)), False) for n in (5, 9, 7)]
    was_training = model.training
    model.eval()
    apart, together = (
        hidden_states(model, **inputs).flatten(0, 1)[at]
        for inputs, at, _ in (pad_texts(texts, device), pack_texts(texts, device, sys.maxsize))
    )
    model.train(was_training)
    error = ((apart - together).float().abs().max() / apart.float().abs().max()).item()
    if not error <= (tolerance or (1e-4 if apart.dtype in (torch.float32, torch.float64) else 0.05)):
        raise ValueError(
            f"{type(inside).__name__} ({inside.name_or_path}) does not keep packed texts apart: hidden states differ by "
            f"{error:.2g} of the largest. Set packing to false for this model."
        )
