"""Sample ids from rows of logits, a tile of the vocabulary at a time, without a second tensor of the size of the logits."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from fusion.models.head.logits import BLOCK, TILE, logsumexp


class SampledIds(NamedTuple):
    """The distinct sampled ids of each row, by descending `logprobs`; the rest of the D entries are empty (-1, -inf, 0)."""

    logprobs: Float[Tensor, "N D"]
    """log of count / D times p / q: an unbiased estimate of each probability p, where q is the distribution sampled from."""
    ids: Int[Tensor, "N D"]
    counts: Int[Tensor, "N D"]


def sample_ids(logits: Float[Tensor, "N V"], uniform: Float[Tensor, "N D"], tau: float = 1.0) -> SampledIds:
    """Sample D ids of each row with replacement, from q proportional to p^tau; one for each number of `uniform` in [0, 1).

    By the inverse of the cumulative distribution, found in two steps: the block of ids, then the id within. Sums are float64.
    At tau = 1 the estimate is count / D, which adds up to exactly 1; at others its sum is 1 on average.

    Source: random sampling knowledge distillation, Anshumann et al. 2025, arXiv:2503.16870.
    """
    highest = logits.amax(-1, keepdim=True)
    blocks = torch.cat([_block_weights(tile, highest, tau) for tile in logits.split(TILE, dim=1)], dim=1)
    ids, total = _inverse_cdf(logits, blocks.cumsum(-1), uniform.double().sort(dim=-1).values, highest, tau)
    same = ids[:, :, None] == ids[:, None, :]
    repeated, counts = same.tril(-1).any(-1), same.sum(-1)
    log_weight = _log_importance_weights(logits, ids, highest, total, tau)
    logprobs = (counts.double().log() - math.log(ids.shape[1]) + log_weight).masked_fill(repeated, -torch.inf)
    order = logprobs.argsort(dim=-1, descending=True, stable=True)
    parts = logprobs.to(logits), ids.masked_fill(repeated, -1), counts.masked_fill(repeated, 0)
    return SampledIds(*(part.gather(1, order) for part in parts))


def _log_importance_weights(
    logits: Tensor, ids: Tensor, highest: Tensor, total: Tensor, tau: float
) -> Float[Tensor, "N D"] | float:
    """Return log(p / q) at the sampled ids."""
    if tau == 1:
        return 0.0
    sampled = logits.gather(1, ids).double()
    log_p, log_q = sampled - logsumexp(logits)[:, None].double(), tau * (sampled - highest) - total.log()
    return log_p - log_q


def _block_weights(tile: Tensor, highest: Tensor, tau: float) -> Float[Tensor, "N B"]:
    """Return the sums of exp(tau (logit - highest)) over each block of the tile."""
    weights = (tau * (tile - highest)).exp_()
    return pad(weights, (0, -weights.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK)).sum(-1, dtype=torch.float64)


def _inverse_cdf(
    logits: Tensor, cumulated: Tensor, uniform: Tensor, highest: Tensor, tau: float
) -> tuple[Int[Tensor, "N D"], Float[Tensor, "N 1"]]:
    """Return the id at which each number's share of the total mass is reached, and the total mass."""
    total = cumulated[:, -1:]
    target = uniform * total
    block = torch.searchsorted(cumulated, target, right=True).clamp(max=cumulated.shape[1] - 1)
    before = pad(cumulated, (1, 0)).gather(1, block)
    ids = block[:, :, None] * BLOCK + torch.arange(BLOCK, device=block.device)  # N D BLOCK
    inside = logits.gather(1, ids.clamp(max=logits.shape[1] - 1).flatten(1)).view_as(ids)
    weights = (tau * (inside - highest[:, :, None])).exp_().masked_fill(ids >= logits.shape[1], 0)
    steps = weights.cumsum(-1, dtype=torch.float64)
    # clamp: the block's sum, taken in another order, can be slightly above its last step
    rest = (target - before)[:, :, None].minimum(steps[:, :, -1:] * (1 - 1e-12))
    index = torch.searchsorted(steps, rest, right=True)
    return ids.gather(-1, index)[:, :, 0], total
