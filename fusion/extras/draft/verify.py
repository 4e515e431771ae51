"""Which of the guessed tokens the target lets stand, and the token after them: functions of distributions alone.

Leviathan et al. 2023, arXiv:2211.17192, and Chen et al. 2023, arXiv:2302.01318: what comes out is what the target alone would
have written, token by token (greedy) or in distribution (sampled), whatever was guessed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Verdict(NamedTuple):
    """What a check of L guesses comes to: accepted + 1 tokens are written."""

    accepted: int
    """How many of the guesses stand, from the first on."""
    token: int
    """What the target puts after them: in place of the first that fell, or behind the last."""


def verify_greedy(guesses: Int[Tensor, " L"], target: Float[Tensor, "L1 V"]) -> Verdict:
    """Guesses stand as long as each is the target's first choice. `target` is at each guess's place and behind the last."""
    best = target.argmax(-1)
    stands = (guesses == best[:-1]).long().cumprod(0)
    accepted = int(stands.sum())
    return Verdict(accepted, int(best[accepted]))


def verify_sampled(
    guesses: Int[Tensor, " L"],
    draft: Float[Tensor, "L V"],
    target: Float[Tensor, "L1 V"],
    generator: torch.Generator | None = None,
) -> Verdict:
    """A guess x, drawn from q, stands with probability min(1, p(x) / q(x)); one that falls is drawn anew from max(0, p - q).

    `draft` are the probabilities q that the guesses were drawn from, `target` those of the target, p, one row more.
    """
    for place, guess in enumerate(guesses.tolist()):
        p, q = target[place], draft[place]
        if torch.rand((), generator=generator, dtype=p.dtype) * q[guess] < p[guess]:
            continue
        rest = (p - q).clamp(min=0)
        # no rest means that p and q are equal up to rounding
        return Verdict(place, _drawn(rest if rest.sum() > 0 else p, generator))
    return Verdict(len(guesses), _drawn(target[-1], generator))


def _drawn(weights: Float[Tensor, " V"], generator: torch.Generator | None) -> int:
    return int(torch.multinomial(weights, 1, generator=generator))
