"""Rows on disk: bytes, speed of decoding, and what the packing does to the losses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks import bodies
from benchmarks.measure import Figure, best
from fusion.cache.codec import bytes_per_row, decode, encode
from fusion.objectives import GLD, ForwardKL, InfiFusion
from fusion.rows import LogitRows

VOCABULARY = 151_936


def measure() -> Iterable[Figure]:
    """At K = 10 and a vocabulary of 152K."""
    yield from _size()
    rows = bodies.random_rows(2000, 250, VOCABULARY)
    tensors = encode(rows, "packed", VOCABULARY)
    speed = len(rows) / best(lambda: decode(tensors, rows.example, 10, VOCABULARY))
    yield Figure("rows decoded a second and core", f"{speed:,.0f}", "≥ 1,000,000", f"{len(rows):,} rows at once")
    yield from _errors()


def _size() -> Iterable[Figure]:
    with tempfile.TemporaryDirectory() as place:
        examples, _ = bodies.texts(256, 300, 50)
        for values in ("packed", "float16"):
            cache = bodies.cache(Path(place) / values, examples, 250, VOCABULARY, values=values)
            target = "≤ 40" if values == "packed" else ""
            raw = 10 * (4 + 8) + 3 * 4 + 2 * 8
            how = f"index included; {bytes_per_row(10, values, VOCABULARY)} without; arrays in memory take {raw}"
            yield Figure(f"bytes of a cached row, {values}", f"{cache.size / len(cache):.2f}", target, how)


def _errors() -> Iterable[Figure]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2000, 5000, generator=generator) / (torch.rand(2, 2000, 1, generator=generator) + 0.1)
    place = torch.arange(2000)
    pivot, source = (_rows(side, place) for side in logits)
    again = decode(encode(source, "packed", VOCABULARY), source.example, 10, VOCABULARY)
    error = (again.logprobs - source.logprobs).abs()
    yield Figure("largest error of a log-probability", f"{error.max():.4f} nat", "≤ 0.03", f"mean {error.mean():.4f}")
    mapped = LogitRows(
        **{**vars(pivot), "logprobs": logits[0].log_softmax(-1).gather(1, source.ids), "ids": source.ids}
    )
    for objective, mine, more in ((InfiFusion(), pivot, ()), (ForwardKL(), mapped, ()), (GLD(), pivot, (20,))):
        exact, packed = (objective(mine, rows, *more).mean().item() for rows in (source, again))
        yield Figure(
            f"{objective.kind}: loss on packed rows / on exact rows", f"{packed / exact:.4f}", "", "2,000 rows"
        )


def _rows(logits: torch.Tensor, place: torch.Tensor) -> LogitRows:
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(10)
    std, mean = torch.std_mean(logprobs, -1, correction=0)
    return LogitRows(values, ids, logprobs[:, 7], mean, std, place % 100, place // 100)
