"""Verification of draft tokens: how many the target accepts, and the token after them. Functions of distributions alone.

Leviathan et al. 2023, arXiv:2211.17192, and Chen et al. 2023, arXiv:2302.01318: what comes out is what the target alone would
have written, token by token (greedy) or in distribution (sampled), whatever was proposed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Verification(NamedTuple):
    """The outcome for L draft tokens: accepted + 1 tokens are written."""

    accepted: int
    """Number of draft tokens accepted, from the first on."""
    token: int
    """The target's own token after them: in place of the first that was rejected, or behind the last."""


def verify_greedy(tokens: Int[Tensor, " L"], target: Float[Tensor, "L1 V"]) -> Verification:
    """Accept tokens as long as each is the target's argmax. `target`: scores at each token and behind the last."""
    best = target.argmax(-1)
    accepted = int((tokens == best[:-1]).long().cumprod(0).sum())
    return Verification(accepted, int(best[accepted]))


def verify_sampled(
    tokens: Int[Tensor, " L"],
    draft: Float[Tensor, "L V"],
    target: Float[Tensor, "L1 V"],
    generator: torch.Generator | None = None,
) -> Verification:
    """Accept a token x, drawn from q, with probability min(1, p(x) / q(x)); draw a rejected one anew from max(0, p - q).

    `draft` are the probabilities q that the tokens were drawn from, `target` those of the target, p, one row more.
    """
    for position, token in enumerate(tokens.tolist()):
        p, q = target[position], draft[position]
        if torch.rand((), generator=generator, dtype=p.dtype) * q[token] < p[token]:
            continue
        rest = (p - q).clamp(min=0)
        # no rest means that p and q are equal up to rounding
        return Verification(position, _sample(rest if rest.sum() > 0 else p, generator))
    return Verification(len(tokens), _sample(target[-1], generator))


def _sample(weights: Float[Tensor, " V"], generator: torch.Generator | None) -> int:
    return int(torch.multinomial(weights, 1, generator=generator))
