"""What formulas make of rows before they compare them: constants in the right type, and complaints about what is missing."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.core.rows import AnyRows, LogitRows, MappedRows

MISSING = 1e-3  # kept mass may fall this far below 1 by rounding; less of it means that entries are missing
EPS = 1e-7  # a row of equal logits has no spread to divide by; its entries count as 0


def as_target(source: AnyRows, pivot: LogitRows) -> AnyRows:
    """Return the source's rows as constants, log-probabilities and moments in the pivot's dtype (hidden states as they are)."""
    source, dtype = source.detach(), pivot.logprobs.dtype
    numbers = {
        n: v.to(dtype) for n, v in vars(source).items() if v is not None and v.is_floating_point() and n != "hidden"
    }
    return dataclasses.replace(source, **numbers)


def full_top(rows: LogitRows, k: int, side: str) -> LogitRows:
    """Return the `k` largest entries of each row. Raises ValueError where a row keeps fewer or has empty ones among them."""
    top = rows.top(k)
    if empty := int((top.ids < 0).any(-1).sum()):
        raise ValueError(
            f"{empty} of {len(rows)} {side} rows have empty entries among their first {k}. Comparing by rank needs {k} "
            f"numbers in every row: lower top_k, or extract the {side} again with a backend that gives {k} of them."
        )
    return top


def require_whole(rows: LogitRows, side: str, kind: str) -> None:
    """Raise ValueError where rows do not hold their whole vocabulary."""
    kept = rows.logprobs.detach().float().exp().sum(-1)
    if bool((kept < 1 - max(MISSING, 4 * torch.finfo(rows.logprobs.dtype).eps)).any()):
        raise ValueError(
            f"{kind} compares whole vocabularies, but the {rows.k} entries that the {side} rows keep hold as little as "
            f"{kept.min().item():.4f} of the probability. Extract the {side} with `top_k: all`, or use infifusion, "
            "which needs only the largest entries."
        )


def standardise_by_row(
    values: Float[Tensor, "N K"], rows: LogitRows | MappedRows, side: str, kind: str
) -> Float[Tensor, "N K"]:
    """Compute (value - mean) / std, by the moments of the whole rows. Raises ValueError where they are not known."""
    if unknown := int((rows.mean.isnan() | rows.std.isnan()).sum()):
        raise ValueError(
            f"{kind} needs the mean and std of the whole row of logits, and {unknown} of {len(rows)} {side} rows do not "
            f"have them (NaN). Set another input of {kind}, or extract the {side} again with a backend that sees the whole "
            "vocabulary."
        )
    return (values - rows.mean[:, None]) / rows.std.clamp(min=EPS)[:, None]
