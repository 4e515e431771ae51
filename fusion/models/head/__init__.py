"""Compute `LogitRows` from hidden states in chunks: the one place where logits exist."""

from fusion.models.head.head import LOGITS_BUDGET, MAX_LOGITS_PER_CHUNK, Head, hidden_states, unwrap_model

__all__ = ["LOGITS_BUDGET", "MAX_LOGITS_PER_CHUNK", "Head", "hidden_states", "unwrap_model"]
