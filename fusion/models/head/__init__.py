"""From hidden states to `LogitRows`: the one place where logits exist."""

from fusion.models.head.head import AT_ONCE, BUDGET, Head, hidden_states, unwrapped

__all__ = ["AT_ONCE", "BUDGET", "Head", "hidden_states", "unwrapped"]
