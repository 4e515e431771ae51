"""One tensor of a base and of the models grown from it, seen in tiles that fit a core's cache.

A method asks for totals over the whole tensor and gives a rule for a tile; where the numbers lie (in memory, in mapped
files, in a base with an adapter) and on how many threads they are read is not its business. Sums run in float64: it
costs a third more than float32, and neither the order of the models nor a cancellation decides an election.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

TILE = 1 << 16
"""Entries treated at once, in whole rows: a few float64 tiles of this size fit a core's cache."""
TASK = 1 << 20
"""Entries a thread takes at once; what it has mapped of them is given back when it is done."""

REMEMBERED = 64 << 20
"""Bytes of numbers that are kept between two passes over a tensor; what is larger is worked out again."""

Flat = Float[Tensor, " n"]
T = TypeVar("T")
Rule = Callable[["Tile"], Flat]


@dataclass(frozen=True)
class Part:
    """One model's tensor: `read(start, stop)` gives these entries, flat; `label` names the model in messages."""

    label: str
    read: Callable[[int, int], Flat]
    release: Callable[[int, int], None] = lambda start, stop: None
    """Called when a thread is done with these entries."""


@dataclass(frozen=True)
class Tile:
    """Some rows of the tensor in float64, read when they are asked for, by one thread, for one purpose."""

    stack: Stack
    start: int
    stop: int

    @cached_property
    def base(self) -> Flat:
        """θ_0."""
        return self._read(self.stack.base)

    @cached_property
    def models(self) -> list[Flat]:
        """θ_s of each model."""
        return [self._read(model) for model in self.stack.models]

    @cached_property
    def changes(self) -> list[Flat]:
        """δ_s = θ_s - θ_0 of each model."""
        return [self._read(model).sub_(self.base) for model in self.stack.models]

    @cached_property
    def magnitudes(self) -> list[Flat]:
        """|δ_s| of each model in float32, rounded once: straight from float32 where the inputs are no wider."""
        base, *models = (self._read(part, narrow=True) for part in (self.stack.base, *self.stack.models))
        return [(model - base).abs_().float() for model in models]

    def _read(self, part: Part, *, narrow: bool = False) -> Flat:
        values = part.read(self.start, self.stop)
        wide = not narrow or values.dtype == torch.float64
        values = values.to(torch.float64 if wide else torch.float32, copy=True)
        if not math.isfinite(values.sum().item()):  # cheaper than looking at each
            bad = int((~torch.isfinite(values)).sum())
            if bad:
                raise ValueError(
                    f"{self.stack.name} in {part.label} has {bad} values that are NaN or infinite, among its entries "
                    f"{self.start} to {self.stop}. Its training had diverged before it was saved, or the file is "
                    "damaged; give an earlier checkpoint."
                )
        return values


@dataclass(frozen=True)
class Stack:
    """The tensor `name` of the base and of every model; `pool` holds the threads, or None for the caller's own."""

    name: str
    shape: tuple[int, ...]
    base: Part
    models: list[Part]
    pool: Executor | None = None

    @staticmethod
    def of(base: Shaped[Tensor, ...], models: Sequence[Shaped[Tensor, ...]], name: str = "the tensor") -> Stack:
        """Tensors in memory."""

        def part(label: str, tensor: Tensor) -> Part:
            flat = tensor.reshape(-1)
            return Part(label, lambda start, stop: flat[start:stop])

        parts = [part(f"model {number}", model) for number, model in enumerate(models, start=1)]
        return Stack(name, tuple(base.shape), part("the base", base), parts)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def row(self) -> int:
        """Entries that belong to one row of a matrix; a vector is one row."""
        return max(1, math.prod(self.shape[1:]) if len(self.shape) > 1 else self.size)

    def total(self, part: Callable[[Tile], Shaped[Tensor, ...]]) -> Shaped[Tensor, ...]:
        """Σ over all tiles of what `part` gives of one, in an order that threads do not change."""
        return self.total_of_many(lambda tiles: functools.reduce(operator.iadd, map(part, tiles)))

    def total_of_many(self, part: Callable[[list[Tile]], Shaped[Tensor, ...]]) -> Shaped[Tensor, ...]:
        """The same, where `part` is dear and takes many neighbouring tiles at once."""
        return functools.reduce(operator.iadd, self._run(part))

    def each(self, do: Callable[[Tile], None]) -> None:
        """Calls `do` once for every tile."""

        def of_task(tiles: list[Tile]) -> None:
            for tile in tiles:
                do(tile)

        for _ in self._run(of_task):
            pass

    def _run(self, do: Callable[[list[Tile]], T]) -> Iterator[T]:
        def released(tiles: list[Tile]) -> T:
            try:
                return do(tiles)
            finally:
                for part in (self.base, *self.models):
                    part.release(tiles[0].start, tiles[-1].stop)

        return (self.pool.map if self.pool else map)(released, list(self._tasks()))

    def _tasks(self) -> Iterator[list[Tile]]:
        step = max(1, TILE // self.row) * self.row
        tiles = max(1, TASK // step)
        if self.size == 0:
            yield [Tile(self, 0, 0)]
        for first in range(0, self.size, step * tiles):
            last = min(first + step * tiles, self.size)
            yield [Tile(self, start, min(start + step, self.size)) for start in range(first, last, step)]


def remembered(found: Callable[[Tile], list[Flat]], stack: Stack, count: int) -> Callable[[Tile], list[Flat]]:
    """`found`, which gives `count` float32 for each entry, worked out once a tile where all of it may be kept."""
    kept: dict[int, list[Flat]] = {}
    if stack.size * count * 4 > REMEMBERED:
        return found

    def remembering(tile: Tile) -> list[Flat]:
        if tile.start not in kept:
            kept[tile.start] = found(tile)
        return kept[tile.start]

    return remembering


def gathered(found: Callable[[Tile], list[Flat]]) -> Callable[[list[Tile]], list[Flat]]:
    """The same for many tiles, one after another."""
    return lambda tiles: [torch.cat(column) for column in zip(*map(found, tiles), strict=True)]
