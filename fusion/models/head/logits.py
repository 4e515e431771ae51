"""From logits to what a row keeps of them, in as few passes over the vocabulary as can be, forward and backward.

Nothing sorts a vocabulary. The largest entries come from the blocks with the largest maxima; logsumexp goes by tiles that
stay in a core's cache; and one autograd function knows the gradient of everything at once, so that the backward pass makes
one tensor of the size of the logits instead of one for each number that was read from them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 64  # entries behind one maximum, in the search for the largest
TILE = 4096  # entries treated at once on a CPU: a tile of a few rows fits its cache


class LogitStatistics(NamedTuple):
    """What is kept of some rows of logits; log-probabilities in nats, moments in the gauge logsumexp = 0."""

    logprobs: Float[Tensor, "N K"]
    ids: Int[Tensor, "N K"]
    gold: Float[Tensor, " N"]
    mean: Float[Tensor, " N"]
    std: Float[Tensor, " N"]
    query_logprobs: Float[Tensor, "N G"]


def summarize_logits(
    logits: Float[Tensor, "N V"], token: Int[Tensor, " N"], query_ids: Int[Tensor, "N G"], k: int, moments: bool = True
) -> LogitStatistics:
    """The `k` largest entries, the log-probabilities of `token` and of the ids in `ask`, and the moments; differentiable.

    Where an id in `ask` is below 0 its value is that of id 0. Without `moments` mean and std are NaN.
    """
    return LogitStatistics(*_SummarizeLogits.apply(logits, token, query_ids, k, moments))  # type: ignore[misc]


def top_k_ids(logits: Float[Tensor, "N V"], k: int) -> Int[Tensor, "N K"]:
    """Ids of the `k` largest entries of each row in descending order; which of several equal ones is not defined.

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
    tail = torch.arange(blocks * BLOCK, vocabulary, device=ids.device).expand(number, -1)
    place = torch.cat([chosen, rest], dim=1).topk(k, dim=-1).indices
    return torch.cat([ids, tail], dim=1).gather(1, place)


def logsumexp(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """log of the sum of exp over each row."""
    if logits.device.type != "cpu" or not logits.shape[1]:
        return logits.logsumexp(-1)
    return torch.stack([_tile_logsumexp(tile) for tile in logits.split(TILE, dim=1)]).logsumexp(0)


def _tile_logsumexp(tile: Tensor) -> Tensor:
    first = tile[:, 0]
    if bool(first.isinf().any()):
        return tile.logsumexp(-1)
    return first - tile.log_softmax(-1)[:, 0]  # any entry less its log-probability; no kernel of a CPU is quicker


def mean_and_std(logits: Float[Tensor, "N V"]) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Mean and population standard deviation of each row."""
    mean = logits.mean(-1)
    if logits.device.type != "cpu":
        return mean, logits.std(-1, correction=0)
    squares = sum((tile - mean[:, None]).square_().sum(-1) for tile in logits.split(TILE, dim=1))
    return mean, torch.as_tensor(squares / logits.shape[1]).sqrt()


class _SummarizeLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, token: Tensor, ask: Tensor, k: int, moments: bool) -> tuple[Tensor, ...]:
        ids = top_k_ids(logits, min(k, logits.shape[1])) if k else token.new_empty(len(token), 0)
        wanted = torch.cat([ids, token[:, None], ask.clamp(min=0)], dim=1)
        lse = logsumexp(logits)
        values = logits.gather(1, wanted) - lse[:, None]
        mean, std = mean_and_std(logits) if moments else [lse.new_full(lse.shape, torch.nan)] * 2
        ctx.moments = moments
        ctx.save_for_backward(logits, wanted, mean, std)
        ctx.mark_non_differentiable(ids)
        logprobs, gold, asked = values.split([ids.shape[1], 1, ask.shape[1]], dim=1)
        return logprobs.contiguous(), ids, gold[:, 0].contiguous(), mean - lse, std.clone(), asked.contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        logits, wanted, mean, std = ctx.saved_tensors
        to_logprobs, _, to_gold, to_mean, to_std, to_asked = grads
        to_wanted = torch.cat([to_logprobs, to_gold[:, None], to_asked], dim=1)
        hangs_on_lse = to_wanted.sum(1) + (to_mean if ctx.moments else 0)
        grad = logits.softmax(-1).mul_(-hangs_on_lse[:, None])
        if ctx.moments:
            slope = torch.where(std > 0, to_std / (std * logits.shape[1]), 0)  # equal logits: no direction to go
            grad.add_((to_mean / logits.shape[1] - slope * mean)[:, None]).addcmul_(logits, slope[:, None])
        return grad.scatter_add_(1, wanted, to_wanted), None, None, None, None
