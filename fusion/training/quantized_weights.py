"""Weights in few bits: functions of groups of weights, what they are told back from, and their form on disk.

A group [n] becomes n small integers, a scale and perhaps a zero, all of float32: weight = code * scale + zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

ZERO_CODE = {1: 0.5, 2: 1.0}
"""Of codes in so many bits, the one that stands for 0: such weights are symmetric, and their zeros need not be stored."""

Granularity = Literal["row", "tensor"] | int
"""Weights that share a scale: those of an output (a row), all of a layer, or so many neighbours in a row."""


class Codes(NamedTuple):
    """Groups of quantized weights."""

    codes: Int[Tensor, "G n"]
    """From 0 up."""
    scale: Float[Tensor, "G 1"]
    zero: Float[Tensor, "G 1"]

    def values(self) -> Float[Tensor, "G n"]:
        """The weights, in float32."""
        return self.codes * self.scale + self.zero


def ternary(weight: Float[Tensor, "G n"], threshold: float = 0.7) -> Codes:
    """-scale, 0 or scale: 0 where |w| is at most `threshold` times its mean, and the scale the mean |w| of the others.

    So the scale is the least-squares one for that choice of zeros. A group of zeros stays zeros.

    Source: ternary weight networks, Li et al. 2016, arXiv:1605.04711, as in TSLD, arXiv:2308.06744.
    """
    size = weight.abs()
    kept = size > threshold * size.mean(-1, keepdim=True)
    scale = (size * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp(min=1)
    return Codes((weight.sign() * kept).to(torch.int8) + 1, scale, -scale)


def binary(weight: Float[Tensor, "G n"]) -> Codes:
    """-scale or scale, by the sign (0 counts as positive); the scale is the mean of |w|.

    Source: XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279, as in FAQD, arXiv:2302.10899.
    """
    scale = weight.abs().mean(-1, keepdim=True)
    return Codes((weight >= 0).to(torch.int8), 2 * scale, -scale)


def uniform(weight: Float[Tensor, "G n"], bits: int = 4) -> Codes:
    """The nearest of 2^bits even steps from the least weight of the group to its largest."""
    low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
    scale = (high - low) / ((1 << bits) - 1)
    codes = ((weight - low) / torch.where(scale > 0, scale, 1)).round()
    return Codes(codes.to(torch.int8), scale, low)


def grouped(weight: Float[Tensor, "O I"], per: Granularity) -> Float[Tensor, "G n"]:
    """The weights of a layer with one group in each row, in float32. Raises ValueError where groups do not fill the rows."""
    if isinstance(per, int) and weight.shape[1] % per:
        raise ValueError(f"rows of {weight.shape[1]} weights cannot be cut into groups of {per}")
    width = weight.shape[1] if per == "row" else weight.numel() if per == "tensor" else per
    return weight.float().reshape(-1, width)


def straight_through(weight: Tensor, quantized: Tensor) -> Tensor:
    """`quantized`, whose gradient goes to `weight` as it is."""
    return _StraightThrough.apply(weight, quantized)  # type: ignore[return-value]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantized: Tensor) -> Tensor:
        return quantized.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def save_codes(file: Path, layers: Mapping[str, tuple[Codes, Tensor]], bits: int) -> None:
    """Write the codes of each layer, `bits` each, with scales and zeros; beside the codes of a layer stands its weight."""
    tensors = {}
    for name, (codes, _) in layers.items():
        tensors |= {f"{name}.codes": pack_codes(codes.codes, bits), f"{name}.scale": codes.scale}
        tensors |= {} if bits in ZERO_CODE else {f"{name}.zero": codes.zero}
    shapes = {name: [*weight.shape] for name, (_, weight) in layers.items()}
    about = {
        "quantized": json.dumps({"bits": bits, "shapes": shapes})
    }  # one key: the order of several differs from run to run
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata=about)


def load_weights(file: Path) -> dict[str, Float[Tensor, "O I"]]:
    """The weights of each layer that `save_codes` wrote, in float32."""
    with safe_open(file, "pt") as stored:
        about = json.loads(stored.metadata()["quantized"])
        shapes, bits = about["shapes"], about["bits"]
        found = {}
        for name, shape in shapes.items():
            codes, scale = (stored.get_tensor(f"{name}.{part}") for part in ("codes", "scale"))
            zero = -ZERO_CODE[bits] * scale if bits in ZERO_CODE else stored.get_tensor(f"{name}.zero")
            count = shape[0] * shape[1]
            groups = Codes(unpack_codes(codes, bits, count).view(len(scale), -1), scale, zero)
            found[name] = groups.values().view(*shape)
        return found


def pack_codes(codes: Int[Tensor, "G n"], bits: int) -> UInt8[Tensor, " bytes"]:
    """Codes of 1, 2 or 4 bits, one after another, lowest bits first."""
    each = 8 // bits
    flat = codes.flatten().to(torch.uint8)
    whole = torch.cat([flat, flat.new_zeros(-len(flat) % each)]).view(-1, each)
    return (whole << (torch.arange(each, dtype=torch.uint8, device=flat.device) * bits)).sum(-1, dtype=torch.uint8)


def unpack_codes(packed: UInt8[Tensor, " bytes"], bits: int, count: int) -> Int[Tensor, " count"]:
    """Undo `pack_codes`."""
    shift = torch.arange(8 // bits, dtype=torch.uint8) * bits
    return ((packed[:, None] >> shift) & ((1 << bits) - 1)).flatten()[:count].to(torch.int8)
