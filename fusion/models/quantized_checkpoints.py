"""Checkpoints whose weights were quantized before: by which method, and which packages read them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

PACKAGES: dict[str, tuple[str, ...]] = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto-round",),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    "eetq": ("kernels",),
    "fbgemm_fp8": ("fbgemm-gpu",),
    "fouroversix": ("fouroversix",),
    "fp_quant": ("fp_quant",),
    "gptq": ("optimum", "gptqmodel"),
    "higgs": ("flute-kernel",),
    "hqq": ("hqq",),
    "nvfp4": ("kernels",),
    "quanto": ("optimum-quanto",),
    "quark": ("amd-quark",),
    "sinq": ("sinq",),
    "spqr": ("spqr_quant",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}
"""What transformers needs to read weights of a method, as pip knows it. Methods without an entry need none (fp8, mxfp4)."""
GPU_ALONE = frozenset({"eetq", "fbgemm_fp8", "fp_quant", "higgs", "nvfp4", "sinq", "spqr", "vptq"})
"""Methods whose weights transformers reads on a GPU alone."""


def quantization_method(config: Any) -> str | None:
    """Return how the weights of a configuration were quantized, as config.json names it; None where they were not.

    bitsandbytes of 8 and of 4 bits is one method here. "unknown" where config.json does not say which.
    """
    given = next((found for each in (config, config.get_text_config()) if (found := _given(each))), None)
    if given is None:
        return None
    if given.get("load_in_8bit") or given.get("load_in_4bit"):
        return "bitsandbytes"
    return str(getattr(method := given.get("quant_method") or "unknown", "value", method))


def is_known_method(method: str) -> bool:
    """Return whether the installed transformers reads weights of this method; it would load others as if nothing were said."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    return method == "bitsandbytes" or method in AUTO_QUANTIZER_MAPPING


def missing_packages(method: str) -> list[str]:
    """Return the packages that are not installed among those that read weights of this method."""
    return [name for name in PACKAGES.get(method, ()) if not is_installed(name)]


def is_installed(package: str) -> bool:
    """Return whether a package is installed, by the name that pip knows it by."""
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _given(config: Any) -> Mapping[str, Any] | None:
    given = getattr(config, "quantization_config", None) or getattr(config, "compression_config", None)
    return given if given is None or isinstance(given, Mapping) else given.to_dict()
