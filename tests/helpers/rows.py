"""Rows for tests, made from whole rows of logits so that every field is what it claims to be."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion.core.rows import LogitRows, MappedRows, Positions


def rows_of(logits: Tensor, k: int, token: Tensor | None = None, example: Tensor | None = None) -> LogitRows:
    """The rows of `logits` [N, V], with gradients: the k largest entries, and the truth in every other field."""
    number = len(logits)
    logprobs = log_softmax(logits)
    token = torch.arange(number) % logits.shape[1] if token is None else token
    example = torch.zeros(number, dtype=torch.long) if example is None else example
    values, ids = logprobs.topk(k, dim=-1)
    gold = logprobs.gather(1, token[:, None])[:, 0]
    mean, std = logprobs.mean(-1), torch.std(logprobs, -1, correction=0) if number else logprobs.sum(-1)
    return LogitRows(values, ids, gold, mean, std, prefix=torch.arange(number), example=example, token=token)


def log_softmax(logits: Tensor) -> Tensor:
    """Computed in float32 at least, as a head does, in the type of the logits."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return (wide - wide.logsumexp(-1, keepdim=True)).to(logits.dtype)


def random_rows(
    N: int, K: int, V: int, dtype: torch.dtype = torch.float32, seed: int = 0, examples: int = 1
) -> LogitRows:
    """N random rows in `examples` neighbouring groups of about equal size, the K largest of V entries kept."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(N, V, generator=generator, dtype=torch.float64) * 3
    token = torch.randint(V, (N,), generator=generator)
    example = torch.arange(N) * examples // max(N, 1)
    return rows_of(logits.to(dtype), K, token, example)


def query(logits: Tensor, ids: Tensor, positions: Positions) -> LogitRows:
    """What the model with these logits says of `ids` [N, K], with gradients; anything where an id is -1."""
    logprobs = log_softmax(logits)
    rows = rows_of(logits, 0, positions.token, positions.example)
    values = logprobs.gather(1, ids.clamp(min=0))
    return LogitRows.at(positions, logprobs=values, ids=ids, gold=rows.gold, mean=rows.mean, std=rows.std)


def as_mapped(rows: LogitRows, **changes: Tensor | None) -> MappedRows:
    """The rows of a source that has the pivot's own vocabulary and tokens."""
    fields = {name: value for name, value in vars(rows).items() if name != "gold"}
    return MappedRows(**{**fields, "pivot_token_logprob": rows.gold, **changes})
