"""The mass that the kept entries of a row leave over, in logarithms: one more outcome, `other`."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Tail = Literal["exact", "single", "even"]
"""What is assumed of the mass outside a row's entries: there is none; it is one token's; all other tokens have the same."""


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


def log_power_sum(
    logprobs: Float[Tensor, "M K"], gamma: float, tail: Tail, vocabulary: int | None = None
) -> Float[Tensor, " M"]:
    """log of the sum over the whole vocabulary of p^gamma, p = exp(logprobs), for gamma > 0.

    The mass m outside the entries adds m^gamma if it is one token's (`single`) and (V-K)^(1-gamma) m^gamma if it is spread
    evenly (`even`, which needs the size of the vocabulary). The truth lies between the two. `exact` adds nothing.
    """
    kept = (gamma * logprobs).logsumexp(-1)
    if tail == "exact":
        return kept
    rest = gamma * log_left_over(logprobs)
    if tail == "even":
        assert vocabulary is not None
        others = (vocabulary - (~logprobs.isneginf()).sum(-1)).clamp(min=1)
        rest = rest + (1 - gamma) * others.to(rest).log()
    return torch.logaddexp(kept, rest)
