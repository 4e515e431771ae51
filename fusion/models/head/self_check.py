"""Check that a `Head` makes the logits that its model makes, in whatever precision the model computes them."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fusion.core.finite import broken_weights
from fusion.models.checkpoint_files import shown
from fusion.models.head.forward import describe_model, output_layer, run_to_head, unwrap_model, without_router_loss

if TYPE_CHECKING:
    from fusion.models.head.head import Head

SIZES = (0.0, 1.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Largest logits of the states that are tried: 0 shows a bias, small ones a scale, large ones soft-capping."""
ROUNDINGS = 8
"""Operations after the output layer that may round, each by half a step of the precision: scale, division, tanh, product."""

MODEL_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, ImportError)
"""What the forward of a model raises where it needs other arguments, has no kernel for a precision, or lacks a package."""


@torch.no_grad()
def check_against_model(head: Head, model: Any) -> None:
    """Compare the logits of `head` with the model's own; raise ValueError where they differ by more than rounding explains.

    A new architecture may do something to its logits that `Head` does not know; better to stop than to distill other
    numbers than the model's. The states that its output layer reads are replaced by multiples of themselves, so that the
    logits take all `SIZES` whatever the model's own are: a missing scale, bias or soft-cap then shows. What is compared is
    computed from the same output of the output layer, so that its precision (bfloat16 has steps of 0.5 at logits of 100)
    cancels out; what remains are the roundings of the operations after it, in the precision of that output.

    Raises ValueError too for a model that cannot be run with token ids alone, and for one that looks ahead.
    """
    inside = unwrap_model(model)
    ids = (torch.arange(len(SIZES), device=next(inside.parameters()).device) * 37 % head.vocabulary)[None]
    raw, own = _logits_of_probes(model, ids, head.vocabulary)
    _refuse_not_finite(inside, raw)
    check_looks_back_only(model, ids)
    expected, step = head.from_layer(raw), torch.finfo(raw.dtype).eps
    own = own[:, : head.vocabulary].to(expected.dtype)
    masked = expected.isneginf() & own.isneginf()  # ids that both say cannot come
    expected, own = expected.masked_fill(masked, 0), own.masked_fill(masked, 0)
    error = (own - expected).abs()
    largest = torch.maximum(own.abs(), expected.abs())
    a, b = own.double(), expected.double()
    # over a row roundings cancel, and a factor does not; the row of zeros has none
    systematic = ((a * b).sum(-1) / (b * b).sum(-1).clamp(min=1e-30) - 1).abs()[1:]
    if bool((error <= ROUNDINGS / 2 * step * largest + 1e-12).all()) and bool((systematic <= step / 2).all()):
        return
    if bool((own <= torch.finfo(raw.dtype).min / 2).any()):
        raise ValueError(
            f"{describe_model(inside)}: it sets the logits of some ids to the smallest number, as models that write images "
            "or sounds beside text do; this architecture is not supported."
        )
    row, column = divmod(int((error / (largest + 1e-12)).argmax()), error.shape[1])
    raise ValueError(
        f"{describe_model(inside)}: where its output layer gives {raw[row, column]:.4g}, its own logit is "
        f"{own[row, column]:.4g}, and with scale {head.scale:g} and soft-cap {head.softcap} it should be "
        f"{expected[row, column]:.4g}. It does something to its logits besides a scale and soft-capping; this model cannot be "
        "used until fusion/models/head/head.py knows about it."
    )


@torch.no_grad()
def check_looks_back_only(model: Any, ids: Int[Tensor, "1 T"]) -> None:
    """Raise ValueError for a model whose state at a position depends on later tokens: it would see what it is to predict.

    The first state must not change with all tokens behind it, and no state with the last token. The same text beside others
    in a batch shows what rounding does: the experts of a mixture get other tokens with it.
    """
    behind, last = (ids + 1) % int(ids.max() + 1), ids.clone()
    behind[0, 0], last[0, -1] = ids[0, 0], behind[0, -1]
    was_training = model.training
    model.eval()
    try:
        routers = without_router_loss(model)
        hidden, dtype, *_ = run_to_head(model, input_ids=torch.cat([ids, behind, last]), **routers)
        beside, *_ = run_to_head(model, input_ids=torch.cat([ids, last, ids]), **routers)
    finally:
        model.train(was_training)

    def change(states: Tensor, others: Tensor) -> float:
        return ((states.float() - others.float()).norm() / hidden[0].float().norm()).item()

    moved = max(change(hidden[1, :1], hidden[0, :1]), change(hidden[2, :-1], hidden[0, :-1]))
    rounding = max(1e-3 if dtype in (torch.float32, torch.float64) else 1e-2, 10 * change(beside[0], hidden[0]))
    if not moved <= rounding:
        raise ValueError(
            f"{describe_model(unwrap_model(model))}: its hidden states change by {moved:.2g} of their norm with tokens that "
            f"follow, and rounding explains {rounding:.2g}: it is no causal language model and would see what it is to "
            "predict. If it was trained as a decoder (is_decoder, causal), say so in its config.json; else this architecture "
            "is not supported."
        )


def _logits_of_probes(
    model: Any, ids: Int[Tensor, "1 T"], vocabulary: int
) -> tuple[Float[Tensor, "T W"], Float[Tensor, "T V"]]:
    """Return what the output layer gives for the probes, and the logits that the model makes of it."""
    layer, outputs = output_layer(unwrap_model(model)), []

    def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        # a layer that gets a few positions at a time is left alone, and found by the shape of what it gives
        return (_probes(module, args[0]), *args[1:]) if args[0].shape[:-1] == ids.shape else None

    hooks = [
        layer.register_forward_pre_hook(replace),
        # a copy: what the model does to its logits it may do in place
        layer.register_forward_hook(lambda _module, _args, output: outputs.append(output.clone())),
    ]
    was_training = model.training
    model.eval()
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    except torch.OutOfMemoryError:
        raise
    except MODEL_ERRORS as error:
        if _is_from_hooks(error):
            raise
        raise ValueError(
            f"{describe_model(unwrap_model(model))} cannot be run with token ids alone in this precision: "
            f"{type(error).__name__}: {error}. If it runs in another one, use that; else this architecture is not supported."
        ) from error
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if len(outputs) != 1 or outputs[0].shape[:-1] != logits.shape[:-1] or logits.shape[-1] < vocabulary:
        raise ValueError(
            f"{describe_model(unwrap_model(model))}: its output layer gives {[tuple(o.shape) for o in outputs]}, and its "
            f"logits have the shape {tuple(logits.shape)}; this architecture is not supported."
        )
    return outputs[0][0], logits[0]


def _is_from_hooks(error: BaseException) -> bool:
    """Whether our own code, which a model calls while it computes, raised an error: a bug of ours, and none of the model's."""
    frames = list(traceback.walk_tb(error.__traceback__))[1:]  # the first is the call
    return any(frame.f_globals.get("__name__", "").startswith("fusion.") for frame, _ in frames)


def _refuse_not_finite(model: Any, *values: Tensor) -> None:
    """Raise ValueError, with the weights that are the cause where some are, for logits that are NaN or infinite.

    -inf, which masks an id, is a number here, unless a whole row of logits is masked.
    """
    wrong = [value.isnan().any() | value.isposinf().any() | value.isneginf().all(-1).any() for value in values]
    if not any(map(bool, wrong)):
        return
    broken = broken_weights(model.named_parameters())
    exact = getattr(model, "dtype", None) in (torch.float32, torch.float64)
    cause = (
        "its weights are, so the precision is too small" if not exact else "its weights are, and it computes in float32"
    )
    way_out = "choose dtype bfloat16 or float32" if not exact else "take another model: its own code makes them"
    if broken:
        cause, way_out = f"so are values of {shown(broken)} in its files", "copy the files again"
    raise ValueError(f"{describe_model(model)}: its logits are not finite numbers; {cause}. To go on, {way_out}.")


def _probes(layer: nn.Module, hidden: Float[Tensor, "1 T D"]) -> Float[Tensor, "1 T D"]:
    """Return the states scaled so that the largest logits are about `SIZES`; the call is below hooks that gather weights."""
    logits = layer.forward(hidden).float()
    largest = logits.masked_fill(logits.isneginf(), 0).abs().amax(-1, keepdim=True)
    sizes = torch.tensor(SIZES, device=hidden.device)[None, :, None]
    return (hidden.float() * sizes / largest.clamp(min=1e-6)).to(hidden.dtype)
