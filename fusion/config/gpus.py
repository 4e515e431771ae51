"""GPUs by name: what their vendors' data sheets say. Numbers to plan with; nothing is asked of a machine."""

from __future__ import annotations

from typing import NamedTuple


class GPU(NamedTuple):
    """One accelerator."""

    memory: float
    """Bytes, as sold (80 GB are 80e9)."""
    peak: float
    """Dense bfloat16 matrix work with float32 accumulation, in floating-point operations a second; no sparsity."""


GPUS = {
    "a10": GPU(24e9, 125e12),
    "a100": GPU(80e9, 312e12),
    "a100-40gb": GPU(40e9, 312e12),
    "a800": GPU(80e9, 312e12),
    "b200": GPU(180e9, 2250e12),
    "h100": GPU(80e9, 989e12),
    "h100-pcie": GPU(80e9, 756e12),
    "h20": GPU(96e9, 148e12),
    "h200": GPU(141e9, 989e12),
    "h800": GPU(80e9, 989e12),
    "l4": GPU(24e9, 121e12),
    "l40s": GPU(48e9, 362e12),
    "mi250x": GPU(128e9, 383e12),
    "mi300x": GPU(192e9, 1307e12),
    "rtx3090": GPU(24e9, 71e12),
    "rtx4090": GPU(24e9, 165e12),
}
