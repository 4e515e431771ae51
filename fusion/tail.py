"""The mass that the kept entries of a row leave over, in logarithms: one more outcome, `other`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def with_other(logprobs: Float[Tensor, "M K"]) -> Float[Tensor, "M K+1"]:
    """One more outcome at the end, `other`: the log of the mass that the entries leave over."""
    return torch.cat([logprobs, log_left_over(logprobs)[:, None]], dim=-1)


def log_left_over(logprobs: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """log(1 - sum of exp(logprobs)), no lower than the dtype's rounding error, where the gradient ends."""
    # clamp: rounding can put the kept mass at 1 or a hair above, and the log of the rest would be -inf or NaN
    return log1mexp(logprobs.logsumexp(-1).clamp(max=-torch.finfo(logprobs.dtype).eps))


def log1mexp(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """log(1 - exp(x)) for x < 0, to full precision at both ends.

    Source: Mächler 2012, "Accurately computing log(1 - exp(-|a|))", equation 7.
    """
    near = x > -0.6931471805599453  # log 2
    # each branch sees only its own values: the other's gradient could be infinite, and 0 * inf is NaN
    small, large = torch.where(near, x, -0.5), torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
