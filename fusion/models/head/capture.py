"""Take what the output layer reads out of a forward pass that somebody else makes, such as a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.models.head.forward import describe_model, output_layer, unwrap_model


@dataclass
class CapturedStates:
    """The hidden states of the last forward pass; where passes were made with gradients, of the last of those.

    Some trainers run the model again without gradients, for what they log.
    """

    at_head: Tensor | None = None
    """What the output layer was called with."""
    below_head: Tensor | None = None
    """What the model below it gave, where a fused loss reads that and never calls the layer."""
    with_gradients: bool = False
    """Whether gradients were computed in the pass. States may have none then too, where no weight below them is trained."""

    def keep(self, at_head: Tensor | None, below_head: Tensor | None) -> None:
        """Take the states of a pass, unless it has no gradients and an earlier one had."""
        if torch.is_grad_enabled() or not self.with_gradients:
            self.at_head, self.below_head, self.with_gradients = at_head, below_head, torch.is_grad_enabled()

    def states(self, model: Any, shape: tuple[int, ...]) -> Float[Tensor, "B T D"]:
        """Return the states of input ids of this shape. Raises ValueError where the pass gave none at every position."""
        found = self.below_head if self.at_head is None else self.at_head
        if found is None or found.shape[:-1] != shape:
            raise ValueError(
                f"{describe_model(unwrap_model(model))}: a forward pass over input ids of the shape {tuple(shape)} gave hidden "
                f"states of the shape {None if found is None else tuple(found.shape)}. Turn off what cuts or joins sequences "
                "between the collator and the model (padding_free, packing, truncation), or what replaces the model's output "
                "layer (use_liger_kernel)."
            )
        return found


@contextmanager
def capture_states(model: Any) -> Iterator[CapturedStates]:
    """Keep the states of a forward pass of `model`, wrapped or with adapters, in this block; see `CapturedStates`."""
    inside, captured = unwrap_model(model), CapturedStates()

    def keep_at_head(_layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        captured.keep(args[0], None)

    def keep_below_head(_module: nn.Module, _args: Any, output: Any) -> None:
        captured.keep(None, getattr(output, "last_hidden_state", None))

    hooks = [
        output_layer(inside).register_forward_pre_hook(keep_at_head),
        inside.base_model.register_forward_hook(keep_below_head),
    ]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()
