"""One tensor of a base and of the models grown from it, seen in tiles that fit a cache.

A method asks for totals over the whole tensor and gives a rule for a tile; where the numbers lie (in memory, in mapped
files, in a base with an adapter) and on how many threads they are read is not its business.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

TILE = 1 << 18
"""Entries treated at once, in whole rows: few enough to stay in a cache, many enough to outweigh what calling costs."""
TASK = 1 << 20
"""Entries a thread takes at once; what it has mapped of them is given back when it is done."""
REMEMBERED = 128 << 20
"""Bytes of numbers that are kept between two passes over a tensor; what is beyond is worked out again."""

Flat = Float[Tensor, " n"]
T = TypeVar("T")
Rule = Callable[["Tile"], Flat]
"""Called once for a tile, whose numbers it may overwrite."""


@dataclass(frozen=True)
class Part:
    """One model's tensor: `read(start, stop)` gives these entries, flat; `label` names the model in messages."""

    label: str
    dtype: torch.dtype
    """Of what `read` gives."""
    read: Callable[[int, int], Flat]
    release: Callable[[int, int], None] = lambda start, stop: None
    """Called when a thread is done with these entries."""


@dataclass(frozen=True)
class Tile:
    """Some rows of the tensor in the stack's dtype, read when they are asked for, by one thread, for one purpose."""

    stack: Stack
    start: int
    stop: int

    @cached_property
    def base(self) -> Flat:
        """θ_0."""
        return self._read(self.stack.base, self.stack.dtype)

    @cached_property
    def models(self) -> list[Flat]:
        """θ_s of each model."""
        return [self._read(model, self.stack.dtype) for model in self.stack.models]

    def stored(self) -> list[Flat]:
        """θ_s of each model in the type it is stored in: to be read, not to be changed."""
        return [model.read(self.start, self.stop) for model in self.stack.models]

    @cached_property
    def changes(self) -> list[Flat]:
        """δ_s = θ_s - θ_0 of each model."""
        return [self._read(model, self.stack.dtype).sub_(self.base) for model in self.stack.models]

    def magnitudes(self) -> list[Flat]:
        """|δ_s| of each model in float32, rounded once: straight from float32 where the inputs are no wider."""
        parts = (self.stack.base, *self.stack.models)
        narrow = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
        base, *models = (self._read(part, narrow) for part in parts)
        return [model.sub_(base).abs_().float() for model in models]

    def changes_at(self, places: Int[Tensor, " m"]) -> list[Float[Tensor, " m"]]:
        """δ_s in float64 at some places of the tile alone."""
        parts = (self.stack.base, *self.stack.models)
        base, *models = (part.read(self.start, self.stop).index_select(0, places).double() for part in parts)
        return [model.sub_(base) for model in models]

    def check(self) -> None:
        """Raises ValueError, with the name of the model, where an entry is NaN or infinite.

        Such an entry spreads into every sum, so it is enough to call this where a sum or a result is not finite.
        """
        for part in (self.stack.base, *self.stack.models):
            values = part.read(self.start, self.stop)
            bad = int((~torch.isfinite(values)).sum())
            if bad:
                raise ValueError(
                    f"{self.stack.name} in {part.label} has {bad} values that are NaN or infinite, among its entries "
                    f"{self.start} to {self.stop}. Its training had diverged before it was saved, or the file is "
                    "damaged; give an earlier checkpoint."
                )

    def _read(self, part: Part, dtype: torch.dtype) -> Flat:
        return part.read(self.start, self.stop).to(dtype, copy=True)


@dataclass(frozen=True)
class Stack:
    """The tensor `name` of the base and of every model; `pool` holds the threads, or None for the caller's own."""

    name: str
    shape: tuple[int, ...]
    base: Part
    models: list[Part]
    pool: Executor | None = None
    exact: bool = True
    """Whether tiles are float64 whatever the inputs; if not, those of models of 16 bits are float32."""

    @staticmethod
    def of(
        base: Shaped[Tensor, ...],
        models: Sequence[Shaped[Tensor, ...]],
        name: str = "the tensor",
        *,
        exact: bool = True,
    ) -> Stack:
        """Tensors in memory."""

        def part(label: str, tensor: Tensor) -> Part:
            flat = tensor.reshape(-1)
            return Part(label, tensor.dtype, lambda start, stop: flat[start:stop])

        parts = [part(f"model {number}", model) for number, model in enumerate(models, start=1)]
        return Stack(name, tuple(base.shape), part("the base", base), parts, exact=exact)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of the tiles. A change of 16-bit models is exact in float32 unless its parts lie a factor 2^16 apart."""
        narrow = all(part.dtype.itemsize <= 2 for part in (self.base, *self.models))
        return torch.float32 if narrow and not self.exact else torch.float64

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def row(self) -> int:
        """Entries that belong to one row of a matrix; a vector is one row."""
        return max(1, math.prod(self.shape[1:]) if len(self.shape) > 1 else self.size)

    def total(self, part: Callable[[Tile], Shaped[Tensor, ...]]) -> Shaped[Tensor, ...]:
        """Σ over all tiles of what `part` gives of one, in an order that threads do not change.

        Raises ValueError where the sum is not finite because an input is not.
        """
        total = functools.reduce(
            operator.iadd, self._run(lambda tiles: functools.reduce(operator.iadd, map(part, tiles)))
        )
        if not finite(total):
            self.each(Tile.check)
        return total

    def apply(self, rule: Rule, dtype: torch.dtype, write: Callable[[Tile, Flat], None]) -> None:
        """Calls `write` with every tile and what the rule makes of it, in that dtype.

        Raises ValueError where an input is not finite, or the result is not.
        """

        def do(tile: Tile) -> None:
            merged = rule(tile).to(dtype)
            if not finite(merged):
                tile.check()
                raise ValueError(
                    f"{self.name} overflows {dtype} after merging; choose dtype float32 or bfloat16, or smaller weights."
                )
            write(tile, merged)

        self.each(do)

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


def remembered(found: Callable[[Tile], list[Tensor]]) -> Callable[[Tile], list[Tensor]]:
    """`found`, worked out once for each tile as long as there is room to keep it."""
    kept: dict[int, list[Tensor]] = {}
    room, lock = REMEMBERED, Lock()

    def remembering(tile: Tile) -> list[Tensor]:
        nonlocal room
        if tile.start in kept:
            return kept[tile.start]
        numbers = found(tile)
        size = sum(part.nbytes for part in numbers)
        with lock:
            if size <= room:
                kept[tile.start], room = numbers, room - size
        return numbers

    return remembering


def finite(numbers: Shaped[Tensor, ...]) -> bool:
    """Whether none of them is NaN or infinite; their sum tells it sooner than a look at each."""
    return math.isfinite(numbers.sum().item()) or bool(torch.isfinite(numbers).all())
