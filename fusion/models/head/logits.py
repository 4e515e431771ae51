"""Compute what a row keeps of its logits in as few passes over the vocabulary as possible, forward and backward.

Nothing sorts a vocabulary. The largest entries come from the blocks with the largest maxima; logsumexp goes by tiles that
stay in a core's cache; and one autograd function has the gradient of all outputs at once, so that the backward pass allocates
one tensor of the size of the logits instead of one for each output.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 64  # entries per block maximum, in the search for the largest
TILE = 4096  # entries per tile on a CPU: a few rows of a tile fit its cache


class LogitStatistics(NamedTuple):
    """What rows keep of their logits; log-probabilities in nats, mean and std in the gauge logsumexp = 0."""

    logprobs: Float[Tensor, "N K"]
    ids: Int[Tensor, "N K"]
    gold: Float[Tensor, " N"]
    mean: Float[Tensor, " N"]
    std: Float[Tensor, " N"]
    query_logprobs: Float[Tensor, "N G"]


def summarize_logits(
    logits: Float[Tensor, "N V"], token: Int[Tensor, " N"], query_ids: Int[Tensor, "N G"], k: int, moments: bool = True
) -> LogitStatistics:
    """Return the `k` largest entries, the log-probabilities of `token` and of `query_ids`, mean and std; differentiable.

    Where an id in `query_ids` is negative its value is that of id 0. Without `moments` mean and std are NaN.
    """
    return LogitStatistics(*_SummarizeLogits.apply(logits, token, query_ids, k, moments))  # type: ignore[misc]


def top_k_ids(logits: Float[Tensor, "N V"], k: int) -> Int[Tensor, "N K"]:
    """Return the ids of the `k` largest entries of each row in descending order; the order of ties is not defined.

    Exact: an entry among the k largest lies in one of the k blocks whose maxima are largest.
    """
    number, vocabulary = logits.shape
    blocks = vocabulary // BLOCK
    if blocks <= 2 * k:
        return logits.topk(k, dim=-1).indices
    inside, rest = logits[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK)), logits[:, blocks * BLOCK :]
    best = inside.amax(-1).topk(k, dim=-1).indices
    chosen = inside.gather(1, best[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    ids = (best[:, :, None] * BLOCK + torch.arange(BLOCK, device=best.device)).flatten(1)
    remaining = torch.arange(blocks * BLOCK, vocabulary, device=ids.device).expand(number, -1)
    index = torch.cat([chosen, rest], dim=1).topk(k, dim=-1).indices
    return torch.cat([ids, remaining], dim=1).gather(1, index)


def logsumexp(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """Return the logsumexp of each row; by tiles on a CPU, where that is faster."""
    if logits.device.type != "cpu" or not logits.shape[1]:
        return logits.logsumexp(-1)
    return torch.stack([_tile_logsumexp(tile) for tile in logits.split(TILE, dim=1)]).logsumexp(0)


def _tile_logsumexp(tile: Tensor) -> Tensor:
    first = tile[:, 0]
    if bool(first.isinf().any()):
        return tile.logsumexp(-1)
    return first - tile.log_softmax(-1)[:, 0]  # any entry minus its log-probability; no CPU kernel is faster


def mean_and_std(logits: Float[Tensor, "N V"]) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Return mean and population standard deviation of each row."""
    mean = logits.mean(-1)
    if logits.device.type != "cpu":
        return mean, logits.std(-1, correction=0)
    squares = sum((tile - mean[:, None]).square_().sum(-1) for tile in logits.split(TILE, dim=1))
    return mean, torch.as_tensor(squares / logits.shape[1]).sqrt()


class _SummarizeLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, token: Tensor, query_ids: Tensor, k: int, moments: bool
    ) -> tuple[Tensor, ...]:
        ids = top_k_ids(logits, min(k, logits.shape[1])) if k else token.new_empty(len(token), 0)
        gathered_ids = torch.cat([ids, token[:, None], query_ids.clamp(min=0)], dim=1)
        lse = logsumexp(logits)
        values = logits.gather(1, gathered_ids) - lse[:, None]
        mean, std = mean_and_std(logits) if moments else [lse.new_full(lse.shape, torch.nan)] * 2
        ctx.moments = moments
        ctx.save_for_backward(logits, gathered_ids, mean, std)
        ctx.mark_non_differentiable(ids)
        logprobs, gold, query_logprobs = values.split([ids.shape[1], 1, query_ids.shape[1]], dim=1)
        return logprobs.contiguous(), ids, gold[:, 0].contiguous(), mean - lse, std.clone(), query_logprobs.contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        logits, gathered_ids, mean, std = ctx.saved_tensors
        d_logprobs, _, d_gold, d_mean, d_std, d_query = grads
        d_gathered = torch.cat([d_logprobs, d_gold[:, None], d_query], dim=1)
        d_lse = d_gathered.sum(1) + (d_mean if ctx.moments else 0)  # each of these outputs has -logsumexp in it
        grad = logits.softmax(-1).mul_(-d_lse[:, None])
        if ctx.moments:
            slope = torch.where(std > 0, d_std / (std * logits.shape[1]), 0)  # equal logits: the std has no gradient
            grad.add_((d_mean / logits.shape[1] - slope * mean)[:, None]).addcmul_(logits, slope[:, None])
        return grad.scatter_add_(1, gathered_ids, d_gathered), None, None, None, None
