"""Several short texts in one line of a batch: whether a model keeps them apart, and how long a line may be."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from fusion.core.rows import Positions
from fusion.data.batching import pack_texts, pad_texts
from fusion.data.encode import Encoded
from fusion.models.head import run_to_head, unwrap_model


def max_line_length(model: Any, max_length: int) -> int:
    """Choose `TrainingCollator.line_length`: any number where attention does no work across texts, else `max_length` tokens.

    Flash attention takes the lengths of the texts in one line; a masked attention computes the whole square of each line.
    """
    return sys.maxsize if "flash" in str(model.config._attn_implementation) else max_length


@torch.no_grad()
def check_packed_texts_stay_apart(model: Any) -> None:
    """Compare two packed texts with the same texts apart; ValueError where a hidden state differs.

    transformers tells packed texts apart by their position ids, but not for every architecture (recurrent ones, for
    example, carry their state over). `model` may be wrapped for distributed training. Two things are looked at: that another
    text in front changes nothing at all of the texts behind it, for which rounding is no excuse, since shapes and positions
    are the same; and that the states are those of the texts apart, within what the precision explains.
    """
    device, was_training = next(model.parameters()).device, model.training
    texts, other = _texts(7), _texts(11)
    model.eval()
    try:
        apart, example, dtype = _states(model, pad_texts(texts, device))
        together, *_ = _states(model, pack_texts(texts, device, sys.maxsize))
        replaced, *_ = _states(model, pack_texts([other[0], *texts[1:]], device, sys.maxsize))
    finally:
        model.train(was_training)
    leaked = ((replaced - together)[example > 0].norm() / together.norm()).item()
    moved = ((apart - together).norm() / apart.norm()).item()
    # as norms: in bfloat16 the largest difference of Gemma 3 is a tenth of its largest state, that of the norms a twenty-fifth
    bound = 1e-4 if dtype in (torch.float32, torch.float64) else 0.1
    if not (leaked <= bound / 100 and moved <= bound):
        inside = unwrap_model(model)
        raise ValueError(
            f"{type(inside).__name__} ({inside.name_or_path}) does not keep packed texts apart: with another text in front, "
            f"hidden states behind it differ by {leaked:.2g} of their norm, and from those of the texts apart by {moved:.2g}; "
            f"rounding explains {bound:.2g}. Set packing to false for this model."
        )


def _texts(factor: int) -> list[Encoded]:
    return [Encoded([(factor * i + n) % 50 for i in range(n)], 1, list(range(n - 1)), False) for n in (9, 7, 5)]


def _states(model: Any, batch: tuple[dict[str, Tensor], Tensor, Positions]) -> tuple[Tensor, Tensor, torch.dtype]:
    """Return the state that each row is read from, the text of each row, and the precision in which the model computes."""
    inputs, index, positions = batch
    found = run_to_head(model, **inputs)
    return found.hidden.flatten(0, 1)[index].float(), positions.example, found.dtype
