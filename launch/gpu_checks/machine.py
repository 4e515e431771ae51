"""The machine and the libraries that numbers were measured with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import fusion

LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "datasets", "numpy")


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, and of the GPU its name, memory in bytes, compute capability and whether it has bfloat16."""
    machine: dict[str, Any] = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "gpu": None,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        machine["gpu"] = {
            "name": properties.name,
            "bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "bf16": torch.cuda.is_bf16_supported(),
            "cuda": torch.version.cuda,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return machine


def versions() -> dict[str, str | None]:
    """Return the versions of Python, fusion and the libraries; None for one that is not installed."""
    return {"python": platform.python_version(), "fusion": fusion.__version__} | {
        name: _version(name) for name in LIBRARIES
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
