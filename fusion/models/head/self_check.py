"""Check that a `Head` makes the logits that its model makes, in whatever precision the model computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.models.head.forward import describe_model, output_layer, unwrap_model

if TYPE_CHECKING:
    from fusion.models.head.head import Head

SIZES = (0.0, 1.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Largest logits of the states that are tried: 0 shows a bias, small ones a scale, large ones soft-capping."""
ROUNDINGS = 8
"""Operations after the output layer that may round, each by half a step of the precision: scale, division, tanh, product."""


@torch.no_grad()
def check_against_model(head: Head, model: Any) -> None:
    """Compare the logits of `head` with the model's own; raise ValueError where they differ by more than rounding explains.

    A new architecture may do something to its logits that `Head` does not know; better to stop than to distill other
    numbers than the model's. The states that its output layer reads are replaced by multiples of themselves, so that the
    logits take all `SIZES` whatever the model's own are: a missing scale, bias or soft-cap then shows. What is compared is
    computed from the same output of the output layer, so that its precision (bfloat16 has steps of 0.5 at logits of 100)
    cancels out; what remains are the roundings of the operations after it, in the precision of that output.
    """
    inside = unwrap_model(model)
    ids = (torch.arange(len(SIZES), device=next(inside.parameters()).device) * 37 % head.vocabulary)[None]
    raw, own = _logits_of_probes(model, ids)
    expected, step = head.from_layer(raw), torch.finfo(raw.dtype).eps
    own = own[:, : head.vocabulary].to(expected.dtype)
    error = (own - expected).abs()
    largest = torch.maximum(own.abs(), expected.abs())
    a, b = own.double(), expected.double()
    systematic = ((a * b).sum(-1) / (b * b).sum(-1).clamp(min=1e-30) - 1).abs()[
        1:
    ]  # roundings cancel, a factor does not
    if bool((error <= ROUNDINGS / 2 * step * largest + 1e-12).all()) and bool((systematic <= step / 2).all()):
        return
    row, column = divmod(int((error / (largest + 1e-12)).argmax()), error.shape[1])
    raise ValueError(
        f"{describe_model(inside)}: where its output layer gives {raw[row, column]:.4g}, its own logit is "
        f"{own[row, column]:.4g}, and with scale {head.scale:g} and soft-cap {head.softcap} it should be "
        f"{expected[row, column]:.4g}. It does something to its logits besides a scale and soft-capping; this model cannot be "
        "used until fusion/models/head/head.py knows about it."
    )


def _logits_of_probes(model: Any, ids: Tensor) -> tuple[Float[Tensor, "T V"], Float[Tensor, "T V"]]:
    """Return what the output layer gives for the probes, and the logits that the model makes of it."""
    layer, outputs = output_layer(unwrap_model(model)), []

    def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_probes(module, args[0]), *args[1:])

    hooks = [
        layer.register_forward_pre_hook(replace),
        layer.register_forward_hook(lambda _module, _args, output: outputs.append(output)),
    ]
    was_training = model.training
    model.eval()
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if len(outputs) != 1 or outputs[0].shape != logits.shape:
        raise ValueError(
            f"{describe_model(unwrap_model(model))}: its output layer gives {[tuple(o.shape) for o in outputs]}, and its "
            f"logits have the shape {tuple(logits.shape)}; this architecture is not supported."
        )
    return outputs[0][0], logits[0]


def _probes(layer: nn.Module, hidden: Float[Tensor, "1 T D"]) -> Float[Tensor, "1 T D"]:
    """Return the states scaled so that the largest logits are about `SIZES`; the call is below hooks that gather weights."""
    largest = layer.forward(hidden).float().abs().amax(-1, keepdim=True)
    sizes = torch.tensor(SIZES, device=hidden.device)[None, :, None]
    return (hidden.float() * sizes / largest.clamp(min=1e-6)).to(hidden.dtype)
