"""Run a causal language model up to its output layer, and take what that layer reads."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class HeadInputs(NamedTuple):
    """What a forward pass gives where the logits of all positions are not wanted."""

    hidden: Float[Tensor, "B T D"]
    """What the output layer reads, in the type in which it reads it."""
    dtype: torch.dtype
    """The type of the output layer's output: the precision in which the model computes, under autocast too."""
    auxiliary_loss: Tensor | None
    """The load-balancing loss of a mixture of experts that returns one (`output_router_logits`), times its coefficient."""
    cache: Any
    """transformers' cache of keys and values, where `use_cache=True` was asked for."""


def hidden_states(model: Any, **inputs: Any) -> Float[Tensor, "B T D"]:
    """Return what the output layer reads at every position; see `run_to_head`."""
    return run_to_head(model, **without_router_loss(model), **inputs).hidden


def without_router_loss(model: Any) -> dict[str, bool]:
    """Return the argument that keeps a mixture of experts from its load-balancing loss, which training alone reads.

    Where config.json asks for it (`output_router_logits`), transformers fails to compute it for a text that is read in parts,
    as in generation.
    """
    inside = unwrap_model(model)
    asked = getattr(inside.config.get_text_config(), "output_router_logits", False)
    takes = "output_router_logits" in inspect.signature(inside.forward).parameters
    return {"output_router_logits": False} if asked and takes else {}


def run_to_head(model: Any, **inputs: Any) -> HeadInputs:
    """Run `model` and return what its output layer reads. `model` may be wrapped for distributed training.

    `inputs` are the model's own; nothing is cached unless they say `use_cache=True`.

    The call goes through the wrapped model, whose hooks need it. The state is taken at the output layer itself: whatever an
    architecture does between its last block and that layer (a norm, a projection, a change of type) is in it. The layer then
    computes the logits of the last position only, which are discarded. Raises ValueError for a model that does not call its
    output layer once with a state for every position.
    """
    captured: list[Tensor] = []
    dtypes: list[torch.dtype] = []

    def keep_last(_layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        captured.append(args[0])
        return (args[0][:, -1:], *args[1:])

    inside = unwrap_model(model)
    layer = output_layer(inside)
    hooks = [
        # before the hooks of ZeRO-3, which tie what they let through to the layer's own backward pass
        layer.register_forward_pre_hook(keep_last, prepend=True),
        layer.register_forward_hook(lambda _layer, _args, logits: dtypes.append(logits.dtype)),
    ]
    try:
        outputs = model(**{"use_cache": False} | inputs)
    finally:
        for hook in hooks:
            hook.remove()
    positions = inputs["input_ids"].shape
    if [state.shape[:-1] for state in captured] != [positions]:
        raise ValueError(
            f"{describe_model(inside)}: its output layer was called with states of the shapes "
            f"{[tuple(state.shape) for state in captured]} for input ids of the shape {tuple(positions)}. It must be called "
            "once, with a state for every position; this architecture is not supported."
        )
    kept = "cache" if hasattr(outputs, "cache") else "past_key_values"  # as older releases of transformers call it
    return HeadInputs(captured[0], dtypes[0], _auxiliary_loss(inside, outputs), getattr(outputs, kept, None))


def output_layer(model: Any) -> nn.Module:
    """Return the layer that makes logits out of hidden states. Raises ValueError for a model that names none."""
    layer = model.get_output_embeddings()
    if layer is None:
        raise ValueError(
            f"{describe_model(model)}: get_output_embeddings() gives no layer, so there is nothing to read logits from; "
            "this architecture is not supported."
        )
    return layer


@torch.no_grad()
def module_below_head(model: Any) -> nn.Module:
    """Return the outermost module that does the work below the output layer, found by running `model` on two tokens.

    Not `model.base_model`, which some architectures never call: OPT calls the decoder inside it.
    """
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _args: called.append(module))
        for module in model.modules()
        if module is not model
    ]
    try:
        model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    layer = output_layer(model)
    below = [module for module in called if all(inner is not layer for inner in module.modules())]
    return max(below, key=lambda module: sum(weight.numel() for weight in module.parameters()))  # the first of equals


def describe_model(model: Any) -> str:
    """Return the class and the location of a model, for messages."""
    return f"{type(model).__name__} ({getattr(model, 'name_or_path', '') or 'no path'})"


def unwrap_model(model: Any) -> Any:
    """Return the causal language model inside the wrappers of distributed training and adapters."""
    from transformers import PreTrainedModel  # more than a second of import, which a plan and a merge need not pay

    while not isinstance(model, PreTrainedModel) and (hasattr(model, "_orig_mod") or hasattr(model, "module")):
        model = getattr(model, "_orig_mod", None) or model.module  # engines hand on every other attribute of the model
    found: Any = model
    return found.get_base_model() if hasattr(found, "get_base_model") else found


COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef", "moe_loss_weight")
"""What the models of transformers call the factor on their load-balancing loss."""


def _auxiliary_loss(model: Any, outputs: Any) -> Tensor | None:
    loss = getattr(outputs, "aux_loss", None)
    if not isinstance(loss, Tensor):  # some models return 0 where they have none
        return None
    places = (model, model.config.get_text_config())
    factors = [getattr(place, name) for name in COEFFICIENTS for place in places if hasattr(place, name)]
    if not factors:
        raise ValueError(
            f"{describe_model(model)} returns an auxiliary loss, and no coefficient for it is known; looked for "
            f"{', '.join(COEFFICIENTS)} in the model and its configuration. Set output_router_logits to false in its "
            "config.json."
        )
    return factors[0] * loss
