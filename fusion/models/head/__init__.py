"""Compute `LogitRows` from hidden states in chunks: the one place where logits exist."""

from fusion.models.head.capture import CapturedStates, capture_states
from fusion.models.head.forward import (
    HeadInputs,
    describe_model,
    hidden_states,
    module_below_head,
    output_layer,
    run_to_head,
    unwrap_model,
    without_router_loss,
)
from fusion.models.head.head import LOGITS_BUDGET, MAX_LOGITS_PER_CHUNK, Head
from fusion.models.head.stop_event import first_of_event

__all__ = [
    "LOGITS_BUDGET",
    "MAX_LOGITS_PER_CHUNK",
    "CapturedStates",
    "Head",
    "HeadInputs",
    "capture_states",
    "describe_model",
    "first_of_event",
    "hidden_states",
    "module_below_head",
    "output_layer",
    "run_to_head",
    "unwrap_model",
    "without_router_loss",
]
