"""Peak memory of the loss on a large vocabulary: the head in chunks against cross-entropy on all logits at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fusion.core.rows import Positions
from fusion.models.head import Head
from fusion.runtime.distributed import free_memory
from gpu_checks.check import Check, CheckContext

ROWS, VOCABULARY, WIDTH = 4096, 151_936, 896
RATIO_BOUND = 4
TINY_ROWS, TINY_VOCABULARY, TINY_WIDTH = 64, 2048, 32


def memory_check(context: CheckContext) -> Iterator[Check]:
    """Forward and backward of the loss in bfloat16, above what weights and states take; both losses are one number."""
    rows, vocabulary, width = (TINY_ROWS, TINY_VOCABULARY, TINY_WIDTH) if context.tiny else (ROWS, VOCABULARY, WIDTH)
    torch.manual_seed(0)
    with torch.device(context.device):
        layer = torch.nn.Linear(width, vocabulary, bias=False, dtype=torch.bfloat16)
        hidden = torch.randn(rows, width, dtype=torch.bfloat16, requires_grad=True)
        tokens = torch.randint(vocabulary, (rows,))
    head = Head(layer, vocabulary, chunk=rows // 4 if context.tiny else None)  # so few rows would not be split
    ways = {"ours": _ours(head, tokens), "naive": _naive(layer, tokens)}
    peaks, losses = {}, {}
    for name, loss in ways.items():

        def work(name: str = name, loss: Callable[[Tensor], Tensor] = loss) -> None:
            value = loss(hidden)
            value.backward()
            losses[name] = value.item()
            hidden.grad = layer.weight.grad = None

        work()  # libraries take memory of their own at the first call
        peaks[name] = peak_bytes(work, context.device)
        how = f"{rows:,} rows x {vocabulary:,}, bf16; logits alone in float32 {rows * vocabulary * 4 / 1e6:,.0f} MB"
        yield Check(f"peak of the loss, {name}", peaks[name] / 1e6, "MB", how=how)
    yield Check(
        "peak of the loss, naive / ours", peaks["naive"] / peaks["ours"], "x", at_least=context.bound(RATIO_BOUND)
    )
    difference = abs(losses["ours"] / losses["naive"] - 1)
    yield Check("loss, ours against naive, relative", difference, at_most=1e-3, how=f"{losses['naive']:.4f} nats")


def _ours(head: Head, tokens: Tensor) -> Callable[[Tensor], Tensor]:
    positions = Positions(
        token=tokens, prefix=torch.arange(len(tokens), device=tokens.device), example=torch.zeros_like(tokens)
    )

    def loss(hidden: Tensor) -> Tensor:
        rows, _ = head.rows(hidden, positions, 10)
        return -rows.gold.mean() + 0 * (rows.logprobs.sum() + rows.std.sum())  # what other terms read is computed too

    return loss


def _naive(layer: torch.nn.Linear, tokens: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda hidden: torch.nn.functional.cross_entropy(layer(hidden).float(), tokens)


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Return the most bytes that torch holds at once during `work`, above those that it held before."""
    if device == "cpu":
        return _peak_on_cpu(work)
    free_memory()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_on_cpu(work: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events: Any = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    sizes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return int(torch.tensor([size for _, size in sizes]).cumsum(0).max())
