"""A second head for the pivot, in a source's vocabulary: the source teaches through it, the text through the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.core.tail import with_other
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import PairObjective
from fusion.objectives.checks import as_target
from fusion.objectives.modules.base import ModuleObjective, ModuleSpec, OutputLayer, linear
from fusion.objectives.token.outcomes import divergence

MAX_CHUNK_NUMBERS = 2**25  # 128 MiB of float32
BASIS = "basis"


class DualHead(ModuleObjective, PairObjective):
    """The pivot's hidden state through a trained projector and the source's own, frozen output layer, against the source's row.

    The second head is in the *source's* vocabulary, so no token is mapped; only positions are matched. It is evaluated at the
    source's entries. The pivot's own head gets no gradient from it, and the exported model does not have it.

    - `binary_kl_norm`: sum over the entries of t^2 KL(1/2 ‖ sigmoid((z - z*) / t)) = t^2 log cosh((z - z*) / 2t): even in the
      difference, 0 exactly where both agree, and with a gradient of at most t/2 an entry.
    - `binary_kl`: sum of t^2 KL(sigmoid(z* / t) ‖ sigmoid(z / t)).
    - `kl`: t^2 KL of the source's distribution to the second head's, on the entries and `other`. t other than 1 needs whole
      rows.

    With `kl`, t = 2 and a head that was recovered from logits this is the frozen-head distillation of *Clone What You Can't
    Steal*, arXiv:2509.00973, for owners of the source. There the student's own head, and its embeddings, are the recovered
    matrix; a pivot with a vocabulary of its own keeps its head and drops the recovered one in the end. `head: cache` takes the
    span from the run's own cache of the source and from nowhere else; see `fusion.cache.head_recovery` for what that takes.

    Softmax leaves the level of logits free; in the binary losses z and z* both have mean 0 over the source's vocabulary, by
    centring the output layer and by the cached mean. So the source's own state, projected rightly, gives exactly 0.

    Source: DHKD, Yang et al. 2024, arXiv:2411.08937 (images), whose second head is trained from nothing; taking the source's is
    ours. `gradient_alignment` takes from this term's gradient on the shared layers what opposes that of all other terms: where
    g . h < 0, g becomes g - (g . h) h / |h|^2, g and h being the gradients of a whole step (all micro-batches and processes).
    The layers are one long vector, as in the authors' code, which however has the pivot's own head in h too, so that an
    opposed step lengthens the head's own gradient; here the head keeps it. It takes one more gradient in memory and two
    backward passes. To end the term early, as the paper does on ImageNet, train in two runs.
    """

    kind: Literal["dual_head"] = "dual_head"
    loss: Literal["binary_kl_norm", "binary_kl", "kl"] = "binary_kl_norm"
    """What is compared, see above."""
    head: str = "source"
    """`source`, its own output layer; `cache`, the span of that layer, recovered from whole rows of the source's cache; or a
    safetensors file with one tensor `basis` [source's vocabulary, d]."""
    temperature: float | None = Field(default=None, gt=0)
    """t above; if not said, 2 (the paper's) in the binary losses and 1 in `kl`."""
    gradient_alignment: bool = False
    """Let this term's gradient not oppose that of the other terms. The paper does so on CIFAR, and not on ImageNet."""

    @property
    def t(self) -> float:
        """`temperature` with its default."""
        return self.temperature or (1.0 if self.loss == "kl" else 2.0)

    @property
    @override
    def required_top_k(self) -> int | None:
        return None if self.loss == "kl" and self.t != 1 else 0

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"mean"} if self.loss != "kl" else ())

    @property
    @override
    def required_pivot_fields(self) -> frozenset[str]:
        return frozenset({"hidden"})

    @property
    def file(self) -> Path | None:
        """The file that `head` names, if it does."""
        return None if self.head in ("source", "cache") else Path(self.head)

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(
            super().requirements,
            output_layer=None if self.head not in ("source", "cache") else self.head,  # type: ignore[arg-type]
            projects_gradient=self.gradient_alignment,
            files=() if self.file is None else (self.file,),
        )

    @override
    def check(self, source_vocabulary: int) -> None:
        if self.file is not None:
            read_basis(self.file, source_vocabulary)

    @override
    def build_module(self, spec: ModuleSpec) -> SecondHead:
        if self.file is not None:
            return SecondHead(spec.pivot_width, read_basis(self.file, spec.source_vocabulary))
        return SecondHead(spec.pivot_width, spec.output_layer("cache" if self.head == "cache" else "source"))

    def __call__(self, pivot: LogitRows, source: LogitRows, module: SecondHead | None = None) -> Float[Tensor, " M"]:
        """One value for each matched row, never negative. Raises ValueError without a module."""
        if module is None or pivot.hidden is None:
            raise ValueError(
                "dual_head compares through a module, made by `build_module`, and the pivot's hidden states."
            )
        wide = torch.float64 if pivot.hidden.dtype == torch.float64 else torch.float32
        hidden, source = module.projector(pivot.hidden.to(wide)), as_target(source, pivot)
        empty = (source.ids < 0) | source.logprobs.isneginf()
        z, source_logprobs = module.logits(hidden, source.ids.clamp(min=0)), source.logprobs.to(wide)
        if self.loss == "kl":
            value = self._kl(
                z, module.log_sum_exp(hidden, self.t), source_logprobs.masked_fill(empty, -torch.inf), empty
            )
        else:
            level = source_logprobs.masked_fill(empty, 0) - source.mean[:, None].to(wide)
            binary = log_cosh if self.loss == "binary_kl_norm" else two_sigmoids
            value = self.t**2 * binary(z / self.t, level / self.t).masked_fill(empty, 0).sum(-1)
        return value.to(pivot.gold.dtype)

    def _kl(self, z: Tensor, lse: Tensor, source_logprobs: Tensor, empty: Tensor) -> Float[Tensor, " M"]:
        log_q = (z / self.t - lse[:, None]).masked_fill(empty, -torch.inf)
        log_p = source_logprobs if self.t == 1 else (source_logprobs / self.t).log_softmax(-1)
        return self.t**2 * divergence(with_other(log_p), with_other(log_q))


class SecondHead(nn.Module):
    """A projector and a frozen output layer, whose logits are less their mean over the vocabulary, which no softmax sees."""

    weight: Tensor
    bias: Tensor
    mean: Tensor

    def __init__(self, width: int, layer: OutputLayer):
        super().__init__()
        weight = layer.weight.detach()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        self.projector = linear(width, weight.shape[1])
        wide = weight if weight.dtype == torch.float64 else weight.float()
        for name, each in (("weight", weight), ("bias", bias - bias.mean()), ("mean", wide.mean(0))):
            self.register_buffer(name, each, persistent=False)

    def logits(self, hidden: Float[Tensor, "M d"], ids: Int[Tensor, "M K"]) -> Float[Tensor, "M K"]:
        """Of some tokens at each projected state; their mean over the whole vocabulary is 0."""

        def some(hidden: Tensor, ids: Tensor) -> Tensor:
            level = (hidden @ self.mean.to(hidden))[:, None]
            return torch.einsum("md,mkd->mk", hidden, self.weight[ids].to(hidden)) + self.bias[ids].to(hidden) - level

        return _in_chunks(some, ids.shape[1] * hidden.shape[1], hidden, ids)

    def log_sum_exp(self, hidden: Float[Tensor, "M d"], temperature: float = 1.0) -> Float[Tensor, " M"]:
        """Of all logits, divided by the temperature, at each projected state."""

        def whole(hidden: Tensor) -> Tensor:
            logits = hidden @ self.weight.T.to(hidden) + self.bias.to(hidden)
            return ((logits - (hidden @ self.mean.to(hidden))[:, None]) / temperature).logsumexp(-1)

        return _in_chunks(whole, len(self.weight), hidden)


def log_cosh(a: Float[Tensor, "M K"], b: Float[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """KL(1/2 ‖ sigmoid(a - b)), which is log cosh((a - b) / 2)."""
    x = (a - b).abs()
    # x/2 + log(1 + exp(-x)) - log 2 loses all digits near 0
    return torch.where(x < 0.02, x.square() / 8 - x**4 / 192, x / 2 + torch.log1p(torch.exp(-x)) - 0.6931471805599453)


def two_sigmoids(a: Float[Tensor, "M K"], b: Float[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """KL(sigmoid(b) ‖ sigmoid(a))."""
    return b.sigmoid() * (b - a) + softplus(a) - softplus(b)


def read_basis(file: Path, vocabulary: int) -> OutputLayer:
    """The tensor `basis` of a safetensors file. Raises ValueError where there is none, or not one that fits."""
    try:
        with safe_open(file, "pt") as tensors:
            names = sorted(tensors.keys())
            basis = tensors.get_tensor(BASIS) if names == [BASIS] else None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"dual_head.head: {file} is no safetensors file that can be read ({error}).") from error
    if basis is None:
        raise ValueError(f"dual_head.head: {file} should hold one tensor, {BASIS}; it holds {', '.join(names)}.")
    if basis.ndim != 2 or len(basis) < vocabulary:
        raise ValueError(
            f"dual_head.head: {BASIS} in {file} has shape {list(basis.shape)}; it should have a row for each of the source's "
            f"{vocabulary} tokens."
        )
    return OutputLayer(basis[:vocabulary])


def _in_chunks(function: Callable[..., Tensor], width: int, *inputs: Tensor) -> Tensor:
    """The function of so many rows at once that `width` numbers of each fit; computed again in the backward pass."""
    chunks = zip(*(each.split(max(1, MAX_CHUNK_NUMBERS // max(1, width))) for each in inputs), strict=True)
    return torch.cat([checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks])  # type: ignore[misc]
