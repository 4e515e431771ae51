"""Pack unsigned integers of any bit width into rows of bytes, and unpack them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

WINDOW = 8  # bytes read for one number, which may begin at any bit of the first
BLOCK = 4096  # rows per block: they and their numbers fit in a core's cache

IntArray = NDArray[np.integer]


def row_bytes(widths: Sequence[int]) -> int:
    """Return the bytes of one row of numbers of these bit widths."""
    return -(-sum(widths) // 8)


def pack(columns: Sequence[IntArray], widths: Sequence[int]) -> NDArray[np.uint8]:
    """Return [N, bytes]: row n holds the n-th number of each column in its width of at most 57 bits, lowest bits first."""
    count, stride = len(columns[0]), row_bytes(widths)
    buffer = np.zeros(count * stride + WINDOW, np.uint8)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        for column, (window, shift) in zip(columns, _windows(buffer, start, stop, stride, widths), strict=True):
            window |= column[start:stop].astype(np.uint64) << np.uint64(shift)
    return buffer[: count * stride].reshape(count, stride)


def unpack(rows: NDArray[np.uint8], widths: Sequence[int]) -> NDArray[np.uint32]:
    """Return [len(widths), N]: the numbers that `pack` wrote into `rows`, of at most 32 bits each."""
    count, stride = rows.shape
    buffer = np.concatenate([np.ascontiguousarray(rows).reshape(-1), np.zeros(WINDOW, np.uint8)])
    numbers = np.empty((len(widths), count), np.uint32)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        windows = _windows(buffer, start, stop, stride, widths)
        for column, width, (window, shift) in zip(numbers, widths, windows, strict=True):
            column[start:stop] = (window >> np.uint64(shift)) & np.uint64((1 << width) - 1)
    return numbers


def _windows(
    buffer: NDArray[np.uint8], start: int, stop: int, stride: int, widths: Sequence[int]
) -> Iterator[tuple[NDArray[np.uint64], int]]:
    """Yield for each column a view of the 64 bits that hold its number, one for each row, and the shift of its lowest bit."""
    bit = 0
    for width in widths:
        offset = start * stride + bit // 8
        yield np.ndarray((stop - start,), "<u8", buffer.data, offset, (stride,)), bit % 8
        bit += width
