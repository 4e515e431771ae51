"""How far a listed log-probability may be from the model's own, by the type it was kept in or the digits it has."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FLOAT32_ERROR = 1e-4
"""Nats that kernels of other programs may be off in float32, at logits of some hundreds."""
MOST_DIGITS = 5
"""With more digits behind the point than these a number is as exact as float32."""


def dtype_errors(values: Float[Tensor, "N K"], dtype: torch.dtype) -> Float[Tensor, "N K"]:
    """Return the largest error of each value, in nats, that was computed and kept in `dtype`.

    That is half a unit in its last place, and half a unit in the last place of a logsumexp of up to 32, for who subtracts it
    in that type.
    """
    eps = torch.finfo(dtype).eps
    finite = values.float().nan_to_num(0.0, 0.0, 0.0).abs()
    return (finite * eps / 2 + 8 * eps).clamp(min=FLOAT32_ERROR)


def inferred_errors(values: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """Return the largest error of each value of which only the numbers are known, as in JSON.

    Numbers that all are bfloat16's (or else float16's) were rounded to it; numbers with a few digits behind the point, to
    those digits. Where both fit, the finer does.
    """
    known = values[values.isfinite()]
    fitting = [dtype_errors(values, dtype) for dtype in (torch.bfloat16, torch.float16) if _is_exact(known, dtype)][:1]
    if (digits := next((n for n in range(MOST_DIGITS + 1) if _has_digits(known, n)), None)) is not None:
        fitting.append(torch.full_like(values.float(), max(0.5 * 10.0**-digits, FLOAT32_ERROR)))
    return torch.stack(fitting or [dtype_errors(values, torch.float32)]).amin(0)


def _is_exact(values: Tensor, dtype: torch.dtype) -> bool:
    # float32 first: a dump of float32 may hold a double's digits
    return bool((values.to(dtype).float() == values.float()).all())


def _has_digits(values: Tensor, digits: int) -> bool:
    scaled = values.double() * 10.0**digits
    rounding = 4 * torch.finfo(values.dtype).eps * scaled.abs() + 1e-9
    return bool((((scaled - scaled.round()).abs() <= rounding) & (rounding < 0.01)).all())
