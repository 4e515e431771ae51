"""Quantization-aware training: the pivot's linear layers compute with quantized weights, while full ones are trained behind.

The gradient passes the quantizer as if it were not there (straight-through). Works with any objective; the baseline gets the
same layers, so that comparisons stay fair. What is trained is written as an ordinary model whose weights are the quantized
ones, and beside it the codes that give exactly these.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import override

from fusion.core.settings import Settings
from fusion.core.text_files import read_object
from fusion.training import quantized_weights
from fusion.training.quantized_weights import Codes, Granularity

CODES = Path("quantized", "codes.safetensors")
"""In the folder of the model; not beside its weights, for some programs read every safetensors file there."""


class Quantizer(Settings, ABC):
    """Which weights are quantized, and which share a scale. Norms never are."""

    if TYPE_CHECKING:
        kind: Any
    bits: ClassVar[int]
    granularity: Granularity = "row"
    """Weights that share a scale: `row`, those of an output; `tensor`, all of a layer; or so many neighbours in a row."""
    modules_to_not_convert: list[str] = Field(default=[])
    """Linear layers that stay as they are, by the last part of their name, such as o_proj."""
    lm_head: bool = False
    """The output head too. It stays as it is by default (a guess), as the embeddings do."""
    embeddings: bool = False
    """The input embeddings too."""

    @field_validator("granularity")
    @classmethod
    def _positive(cls, value: Granularity) -> Granularity:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"must be `row`, `tensor` or at least 1, got {value}")
        return value

    @abstractmethod
    def quantize(self, groups: Float[Tensor, "G n"]) -> Codes:
        """Codes of groups of weights in float32."""

    def codes(self, weight: Float[Tensor, "O I"]) -> Codes:
        """Codes of a layer."""
        return self.quantize(quantized_weights.grouped(weight.detach(), self.granularity))

    def values(self, weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
        """A layer's weights as they are computed with, in their type; the gradient goes to `weight` unchanged."""
        quantized = self.codes(weight).values().view_as(weight).to(weight.dtype)
        return quantized_weights.straight_through(weight, quantized)


class Ternary(Quantizer):
    """-a, 0 and a: 2 bits a weight on disk. See `quantized_weights.ternary`."""

    kind: Literal["ternary"] = "ternary"
    bits: ClassVar[int] = 2
    threshold: float = Field(default=0.7, ge=0, lt=1)
    """Weights become 0 up to this share of the mean size."""

    @override
    def quantize(self, groups: Float[Tensor, "G n"]) -> Codes:
        return quantized_weights.ternary(groups, self.threshold)


class Binary(Quantizer):
    """-a and a: 1 bit a weight. See `quantized_weights.binary`."""

    kind: Literal["binary"] = "binary"
    bits: ClassVar[int] = 1

    @override
    def quantize(self, groups: Float[Tensor, "G n"]) -> Codes:
        return quantized_weights.binary(groups)


class Int4(Quantizer):
    """16 even steps from the least to the largest weight: 4 bits. See `quantized_weights.uniform`."""

    kind: Literal["int4"] = "int4"
    bits: ClassVar[int] = 4

    @override
    def quantize(self, groups: Float[Tensor, "G n"]) -> Codes:
        return quantized_weights.uniform(groups, self.bits)


AnyQuantizer = Annotated[Ternary | Binary | Int4, Field(discriminator="kind")]


class _QuantizedWeight(nn.Module):
    """What stands between a layer and its weight."""

    def __init__(self, quantizer: Quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, weight: Tensor) -> Tensor:
        return self.quantizer.values(weight)


def layers_to_quantize(model: Any, quantizer: Quantizer) -> dict[str, nn.Module]:
    """Find the layers to quantize, by name. Raises ValueError for none, and for settings that the model cannot have."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if (quantizer.lm_head or quantizer.embeddings) and head.weight is embeddings.weight:
        raise ValueError(
            f"quantization_aware_training.lm_head and .embeddings: {type(model).__name__} has one weight for both, which reads "
            "tokens and scores them; leave both out."
        )
    layers: dict[str, nn.Module] = {
        n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head
    }
    names = {name.rsplit(".", 1)[-1] for name in layers}
    if unknown := sorted(set(quantizer.modules_to_not_convert) - names):
        raise ValueError(
            f"quantization_aware_training.modules_to_not_convert: there is no linear layer {', '.join(unknown)}; there are "
            f"{', '.join(sorted(names))}."
        )
    layers = {
        name: layer for name, layer in layers.items() if name.rsplit(".", 1)[-1] not in quantizer.modules_to_not_convert
    }
    more = {id(head): quantizer.lm_head, id(embeddings): quantizer.embeddings}
    layers |= {name: module for name, module in model.named_modules() if more.get(id(module))}
    if not layers:
        raise ValueError(
            f"quantization_aware_training.kind is {quantizer.kind}, and {type(model).__name__} has no linear layer to quantize."
        )
    for name, layer in layers.items():
        try:
            quantized_weights.grouped(layer.weight.detach(), quantizer.granularity)  # type: ignore[union-attr]
        except ValueError as error:
            raise ValueError(
                f"quantization_aware_training.granularity is {quantizer.granularity}: {error} ({name}); take a divisor, or row."
            ) from None
    return layers


def quantize_layers(model: Any, quantizer: Quantizer) -> None:
    """Let these layers compute with quantized weights from now on. Raises ValueError as `layers_to_quantize` does."""
    for layer in layers_to_quantize(model, quantizer).values():
        parametrize.register_parametrization(layer, "weight", _QuantizedWeight(quantizer))


@torch.no_grad()
def finalize_weights(model: Any) -> dict[str, tuple[Codes, Tensor]]:
    """Make the quantized weights the layers' own; returns codes and weight of each layer, on the CPU."""
    found = {}
    for name, layer in list(model.named_modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parts: Any = layer.parametrizations["weight"]
            codes = parts[0].quantizer.codes(parts.original)
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            found[name] = Codes(*(part.cpu() for part in codes)), layer.weight.detach().cpu()
    return found


def export_codes(folder: Path, layers: dict[str, tuple[Codes, Tensor]], quantizer: Quantizer, parameters: int) -> None:
    """Write codes and sizes into the folder of a model of so many parameters, see `read_sizes`."""
    quantized_weights.save_codes(folder / CODES, layers, quantizer.bits)
    weights = sum(weight.numel() for _, weight in layers.values())
    before = sum(weight.nbytes for _, weight in layers.values())
    size = {
        "kind": quantizer.kind,
        "parameters": parameters,
        "quantized": weights,
        "bytes_before": before,
        "bytes": (folder / CODES).stat().st_size,
    }
    (folder / CODES).with_name("size.json").write_text(json.dumps(size, indent=1))


def read_sizes(folder: Path) -> dict[str, Any]:
    """Read what `export_codes` wrote into a model's folder.

    That is kind, parameters, how many of them are quantized, and their bytes before and after, scales included.
    """
    return read_object((folder / CODES).with_name("size.json"))
