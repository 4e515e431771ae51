"""Random numbers that depend on their index alone: no state, so that neither threads nor tiles change them."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

MASK = 0xFFFFFFFF


def uniform(stream: str, start: int, stop: int, *, device: torch.device | None = None) -> Float[Tensor, " n"]:
    """Draw numbers `start` to `stop` of the named stream: multiples of 2^-32 in [0, 1), the same on every machine.

    A counter is hashed twice, each time with another 32 bits of the stream's name, so that two streams are never the same
    sequence shifted. The stream repeats after 2^32 numbers.
    """
    first, second = _stream_keys(stream)
    counter = torch.arange(start, stop, device=device)
    return _hash_32(_hash_32(counter.add_(first).bitwise_and_(MASK)).bitwise_xor_(second)).double().mul_(2.0**-32)


def _hash_32(x: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Hash 32-bit numbers, a bijection that changes half the bits when one changes: Wellons' lowbias32 (public domain)."""
    x.bitwise_xor_(x >> 16).mul_(0x7FEB352D).bitwise_and_(MASK)
    x.bitwise_xor_(x >> 15).mul_(0x846CA68B).bitwise_and_(MASK)
    return x.bitwise_xor_(x >> 16)


def _stream_keys(stream: str) -> tuple[int, int]:
    """Two 32-bit numbers from the name of the stream."""
    digest = hashlib.sha256(stream.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
