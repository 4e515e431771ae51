"""Students of few bits: the pivot's linear layers compute with quantised weights, while full ones are trained behind them.

The gradient passes the quantiser as if it were not there (straight-through). Works with any objective; the baseline gets the
same layers, so that comparisons stay fair. What is trained is written as an ordinary model whose weights are the quantised
ones, and beside it the codes that give exactly these.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fusion.core.settings import Settings
from fusion.training import quantized_weights
from fusion.training.quantized_weights import Codes, Groups

CODES = Path("quantized", "codes.safetensors")
"""In the folder of the model; not beside its weights, for some programs read every safetensors file there."""


class Quantized(Settings, ABC):
    """Which weights are quantised, and which share a scale. Norms never are."""

    bits: ClassVar[int]
    per: Groups = "row"
    """Weights that share a scale: `row`, those of an output; `tensor`, all of a layer; or so many neighbours in a row."""
    keep: list[str] = Field(default=[])
    """Linear layers that stay as they are, by the last part of their name, such as o_proj."""
    head: bool = False
    """The output head too. It stays as it is by default (a guess), as the embeddings do."""
    embeddings: bool = False
    """The input embeddings too."""

    @field_validator("per")
    @classmethod
    def _positive(cls, value: Groups) -> Groups:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"must be `row`, `tensor` or at least 1, got {value}")
        return value

    @abstractmethod
    def quantize(self, groups: Float[Tensor, "G n"]) -> Codes:
        """Codes of groups of weights in float32."""

    def codes(self, weight: Float[Tensor, "O I"]) -> Codes:
        """Codes of a layer."""
        return self.quantize(quantized_weights.grouped(weight.detach(), self.per))

    def values(self, weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
        """A layer's weights as they are computed with, in their type; the gradient goes to `weight` unchanged."""
        quantised = self.codes(weight).values().view_as(weight).to(weight.dtype)
        return quantized_weights.straight_through(weight, quantised)


class Ternary(Quantized):
    """-a, 0 and a: 2 bits a weight on disk. See `quantize.ternary`."""

    kind: Literal["ternary"] = "ternary"
    bits: ClassVar[int] = 2
    threshold: float = Field(default=0.7, ge=0, lt=1)
    """Weights become 0 up to this share of the mean size."""

    def quantize(self, groups: Float[Tensor, "G n"]) -> Codes:
        """See `quantize.ternary`."""
        return quantized_weights.ternary(groups, self.threshold)


class Binary(Quantized):
    """-a and a: 1 bit a weight. See `quantize.binary`."""

    kind: Literal["binary"] = "binary"
    bits: ClassVar[int] = 1

    def quantize(self, groups: Float[Tensor, "G n"]) -> Codes:
        """See `quantize.binary`."""
        return quantized_weights.binary(groups)


class Int4(Quantized):
    """16 even steps from the least to the largest weight: 4 bits. See `quantize.uniform`."""

    kind: Literal["int4"] = "int4"
    bits: ClassVar[int] = 4

    def quantize(self, groups: Float[Tensor, "G n"]) -> Codes:
        """See `quantize.uniform`."""
        return quantized_weights.uniform(groups, self.bits)


AnyStudent = Annotated[Ternary | Binary | Int4, Field(discriminator="kind")]


class _Layer(nn.Module):
    """What stands between a layer and its weight."""

    def __init__(self, student: Quantized):
        super().__init__()
        self.student = student

    def forward(self, weight: Tensor) -> Tensor:
        return self.student.values(weight)


def chosen(model: Any, student: Quantized) -> dict[str, nn.Module]:
    """The layers to quantise, by name. Raises ValueError where there are none, and where the student cannot be."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if (student.head or student.embeddings) and head.weight is embeddings.weight:
        raise ValueError(
            f"student.head and student.embeddings: {type(model).__name__} has one weight for both, which reads tokens and "
            "scores them; leave both out."
        )
    layers: dict[str, nn.Module] = {
        n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head
    }
    names = {name.rsplit(".", 1)[-1] for name in layers}
    if unknown := sorted(set(student.keep) - names):
        raise ValueError(
            f"student.keep: there is no linear layer {', '.join(unknown)}; there are {', '.join(sorted(names))}."
        )
    layers = {name: layer for name, layer in layers.items() if name.rsplit(".", 1)[-1] not in student.keep}
    more = {id(head): student.head, id(embeddings): student.embeddings}
    layers |= {name: module for name, module in model.named_modules() if more.get(id(module))}
    if not layers:
        raise ValueError(f"student.kind is {student.kind}, and {type(model).__name__} has no linear layer to quantise.")  # type: ignore[attr-defined]
    for name, layer in layers.items():
        try:
            quantized_weights.grouped(layer.weight.detach(), student.per)  # type: ignore[union-attr]
        except ValueError as error:
            raise ValueError(f"student.per is {student.per}: {error} ({name}); take a divisor, or row.") from None
    return layers


def prepare(model: Any, student: Quantized) -> None:
    """Let the chosen layers compute with quantised weights from now on. Raises ValueError as `chosen` does."""
    for layer in chosen(model, student).values():
        parametrize.register_parametrization(layer, "weight", _Layer(student))


@torch.no_grad()
def settle(model: Any) -> dict[str, tuple[Codes, Tensor]]:
    """Make the quantised weights the layers' own; codes and weight of each layer, on the CPU."""
    found = {}
    for name, layer in list(model.named_modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parts: Any = layer.parametrizations["weight"]
            codes = parts[0].student.codes(parts.original)
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            found[name] = Codes(*(part.cpu() for part in codes)), layer.weight.detach().cpu()
    return found


def export(folder: Path, layers: dict[str, tuple[Codes, Tensor]], student: Quantized, parameters: int) -> None:
    """Write codes and sizes into the folder of a model of so many parameters, see `size`."""
    quantized_weights.save(folder / CODES, layers, student.bits)
    weights = sum(weight.numel() for _, weight in layers.values())
    before = sum(weight.nbytes for _, weight in layers.values())
    size = {
        "kind": student.kind,  # type: ignore[attr-defined]
        "parameters": parameters,
        "quantized": weights,
        "bytes_before": before,
        "bytes": (folder / CODES).stat().st_size,
    }
    (folder / CODES).with_name("size.json").write_text(json.dumps(size, indent=1))


def size(folder: Path) -> dict[str, Any]:
    """Of a model's folder: kind, parameters, how many of them are quantised, their bytes before and after, scales included."""
    return json.loads((folder / CODES).with_name("size.json").read_text())
