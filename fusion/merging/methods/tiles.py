"""One tensor of a base and of the models fine-tuned from it, read in tiles that fit the CPU's cache.

A method asks for sums over the whole tensor and gives a rule for a tile; where the numbers lie (in memory, in mapped
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

TILE_ENTRIES = 1 << 18
"""Entries of a tile, in whole rows: few enough to stay in the cache, many enough to outweigh what calling costs."""
TASK_ENTRIES = 1 << 20
"""Entries a thread takes at once; the pages it has mapped of them are released when it is done."""
TILE_CACHE_BYTES = 128 << 20
"""Bytes of results that `cached_per_tile` keeps between two passes over a tensor; what is beyond is computed again."""

Flat = Float[Tensor, " n"]
T = TypeVar("T")
Rule = Callable[["Tile"], Flat]
"""Merges a tile; called once for each, whose numbers it may overwrite."""


@dataclass(frozen=True)
class TensorReader:
    """Reads one model's tensor: `read(start, stop)` gives these entries, flat; `label` names the model in messages."""

    label: str
    dtype: torch.dtype
    """Type of what `read` gives."""
    read: Callable[[int, int], Flat]
    release: Callable[[int, int], None] = lambda start, stop: None
    """Called when a thread is done with these entries, so that their memory can be freed."""


@dataclass(frozen=True)
class Tile:
    """Some whole rows of the tensor, flat, in the stack's dtype; read on first access, and used by one thread only."""

    stack: TensorStack
    start: int
    stop: int

    @cached_property
    def base(self) -> Flat:
        """θ_0, the base's entries."""
        return self._read(self.stack.base, self.stack.dtype)

    @cached_property
    def models(self) -> list[Flat]:
        """θ_s, the entries of each model."""
        return [self._read(model, self.stack.dtype) for model in self.stack.models]

    def stored_models(self) -> list[Flat]:
        """θ_s of each model in the dtype it is stored in; perhaps a view of a mapped file, so not to be changed."""
        return [model.read(self.start, self.stop) for model in self.stack.models]

    @cached_property
    def deltas(self) -> list[Flat]:
        """δ_s = θ_s - θ_0 of each model."""
        return [self._read(model, self.stack.dtype).sub_(self.base) for model in self.stack.models]

    def magnitudes(self) -> list[Flat]:
        """|δ_s| of each model in float32, rounded once: computed in float32 where no input is wider."""
        readers = self.stack.readers
        dtype = torch.float64 if any(reader.dtype == torch.float64 for reader in readers) else torch.float32
        base, *models = (self._read(reader, dtype) for reader in readers)
        return [model.sub_(base).abs_().float() for model in models]

    def deltas_at(self, indices: Int[Tensor, " m"]) -> list[Float[Tensor, " m"]]:
        """δ_s of each model in float64, at these indices of the tile only."""
        readers = self.stack.readers
        base, *models = (r.read(self.start, self.stop).index_select(0, indices).double() for r in readers)
        return [model.sub_(base) for model in models]

    def check_finite(self) -> None:
        """Raise ValueError, with the name of the model, where an entry is NaN or infinite.

        Such an entry spreads into every sum, so it is enough to call this where a sum or a result is not finite.
        """
        for reader in self.stack.readers:
            values = reader.read(self.start, self.stop)
            bad = int((~torch.isfinite(values)).sum())
            if bad:
                raise ValueError(
                    f"{self.stack.name} in {reader.label} has {bad} values that are NaN or infinite, among its entries "
                    f"{self.start} to {self.stop}. Its training had diverged before it was saved, or the file is "
                    "damaged; give an earlier checkpoint."
                )

    def _read(self, reader: TensorReader, dtype: torch.dtype) -> Flat:
        return reader.read(self.start, self.stop).to(dtype, copy=True)


@dataclass(frozen=True)
class TensorStack:
    """The tensor `name` of the base and of every model, which a method goes over tile by tile."""

    name: str
    shape: tuple[int, ...]
    base: TensorReader
    models: list[TensorReader]
    executor: Executor | None = None
    """Threads that take tiles; None for the caller's own."""
    always_float64: bool = True
    """Whether tiles are float64 whatever the inputs; if not, those of 16-bit models are float32."""

    @classmethod
    def from_tensors(
        cls,
        base: Shaped[Tensor, ...],
        models: Sequence[Shaped[Tensor, ...]],
        name: str = "the tensor",
        *,
        always_float64: bool = True,
    ) -> TensorStack:
        """Stack tensors in memory, all of one shape."""
        readers = [_reader(f"model {number}", model) for number, model in enumerate(models, start=1)]
        return cls(name, tuple(base.shape), _reader("the base", base), readers, always_float64=always_float64)

    @property
    def readers(self) -> tuple[TensorReader, ...]:
        """The base's, then the models'."""
        return (self.base, *self.models)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Type of the tiles: float64, or float32 where that is enough for 16-bit inputs."""
        # the delta of two 16-bit numbers is exact in float32 unless they lie a factor 2^16 apart
        narrow = all(reader.dtype.itemsize <= 2 for reader in self.readers)
        return torch.float32 if narrow and not self.always_float64 else torch.float64

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def row_size(self) -> int:
        """Entries that belong to one row of a matrix; a vector is one row."""
        return max(1, math.prod(self.shape[1:]) if len(self.shape) > 1 else self.size)

    def sum_over_tiles(self, term: Callable[[Tile], Shaped[Tensor, ...]]) -> Shaped[Tensor, ...]:
        """Σ of `term(tile)` over all tiles, in an order that does not depend on the threads.

        Raises ValueError where the sum is not finite because an input is not.
        """
        total = functools.reduce(
            operator.iadd, self._map_tasks(lambda tiles: functools.reduce(operator.iadd, map(term, tiles)))
        )
        if not all_finite(total):
            self.for_each_tile(Tile.check_finite)
        return total

    def apply(self, rule: Rule, dtype: torch.dtype, write: Callable[[Tile, Flat], None]) -> None:
        """Call `write` with every tile and what the rule makes of it, in that dtype.

        Raises ValueError where an input is not finite, or the result is not.
        """

        def merge_tile(tile: Tile) -> None:
            merged = rule(tile).to(dtype)
            if not all_finite(merged):
                tile.check_finite()
                raise ValueError(
                    f"{self.name} overflows {dtype} after merging; choose dtype float32 or bfloat16, or smaller weights."
                )
            write(tile, merged)

        self.for_each_tile(merge_tile)

    def for_each_tile(self, action: Callable[[Tile], None]) -> None:
        """Call `action` once for every tile, on the threads."""

        def run_task(tiles: list[Tile]) -> None:
            for tile in tiles:
                action(tile)

        for _ in self._map_tasks(run_task):
            pass

    def _map_tasks(self, run_task: Callable[[list[Tile]], T]) -> Iterator[T]:
        def run_and_release(tiles: list[Tile]) -> T:
            try:
                return run_task(tiles)
            finally:
                for reader in self.readers:
                    reader.release(tiles[0].start, tiles[-1].stop)

        return (self.executor.map if self.executor else map)(run_and_release, list(self._tasks()))

    def _tasks(self) -> Iterator[list[Tile]]:
        step = max(1, TILE_ENTRIES // self.row_size) * self.row_size
        tiles = max(1, TASK_ENTRIES // step)
        if self.size == 0:
            yield [Tile(self, 0, 0)]
        for first in range(0, self.size, step * tiles):
            last = min(first + step * tiles, self.size)
            yield [Tile(self, start, min(start + step, self.size)) for start in range(first, last, step)]


def cached_per_tile(compute: Callable[[Tile], list[Tensor]]) -> Callable[[Tile], list[Tensor]]:
    """Wrap `compute` so that its result is kept for each tile, as long as TILE_CACHE_BYTES has room for it."""
    cache: dict[int, list[Tensor]] = {}
    free_bytes, lock = TILE_CACHE_BYTES, Lock()

    def compute_once(tile: Tile) -> list[Tensor]:
        nonlocal free_bytes
        if tile.start in cache:
            return cache[tile.start]
        tensors = compute(tile)
        size = sum(tensor.nbytes for tensor in tensors)
        with lock:
            if size <= free_bytes:
                cache[tile.start], free_bytes = tensors, free_bytes - size
        return tensors

    return compute_once


def all_finite(numbers: Shaped[Tensor, ...]) -> bool:
    """Whether no entry is NaN or infinite."""
    # the sum tells it sooner than a look at each; where it overflows alone, each is looked at
    return math.isfinite(numbers.sum().item()) or bool(torch.isfinite(numbers).all())


def _reader(label: str, tensor: Tensor) -> TensorReader:
    flat = tensor.reshape(-1)
    return TensorReader(label, tensor.dtype, lambda start, stop: flat[start:stop])
