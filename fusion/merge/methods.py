"""Ways to merge one tensor of several models that grew out of the same base.

δ_s = θ_s - θ_0 is what model s changed. A method looks at one tensor at a time (thresholds and weights are per tensor),
takes any floating dtype and returns float32. Sums run in float64, in blocks, so that the order of the models does not
decide an election, and so that memory stays at one float32 copy of the tensor (two for SCE) for any number of models.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from fusion.merge.threshold import threshold
from fusion.settings import Settings

BLOCK = 1 << 16
"""Entries treated at once: a few float64 blocks of this size fit a core's cache."""

Flat = Float[Tensor, " n"]
AnyShape = Float[Tensor, "..."]
Rule = Callable[[slice, Flat, list[Flat]], Flat]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Method(Settings, ABC):
    """A rule for one tensor: base and models in, merged tensor out."""

    def __call__(self, base: AnyShape, models: Sequence[AnyShape]) -> AnyShape:
        """The merged tensor, float32, in the shape of `base`. Raises ValueError on other shapes or a wrong count."""
        self.check(len(models))
        for model in models:
            if model.shape != base.shape:
                raise ValueError(f"A model's tensor has shape {tuple(model.shape)}, the base's {tuple(base.shape)}.")
        rule = self._rule(base, models)
        merged = torch.empty(base.numel(), dtype=torch.float32, device=base.device)
        for at, origin, others in _blocks(base, models):
            merged[at] = rule(at, origin, others)
        return merged.reshape(base.shape)

    def check(self, models: int) -> None:
        """Raises ValueError, with the reason, where this method cannot merge that many models."""
        if models < 1:
            raise ValueError(f"{self._name} needs at least one model to merge into the base, got none.")

    @abstractmethod
    def _rule(self, base: Tensor, models: Sequence[Tensor]) -> Rule:
        """What to do with each block, once all that depends on the whole tensor is known."""

    @property
    def _name(self) -> str:
        return type(self).model_fields["kind"].default


class Weighted(Method):
    """A method with one weight a model."""

    weights: list[Finite] | None = Field(
        default=None, description="One weight a model, in their order; by default all equal."
    )

    def check(self, models: int) -> None:
        """Raises ValueError where there are not as many weights as models."""
        super().check(models)
        if self.weights is not None and len(self.weights) != models:
            raise ValueError(
                f"{self._name} has {len(self.weights)} weights for {models} models; give one each, or leave them out."
            )

    def _shares(self, models: int) -> list[float]:
        return [1 / models] * models if self.weights is None else self.weights


class Linear(Weighted):
    """Weighted average Σ w_s θ_s of the models; the base is not among them. By default each weighs 1/S."""

    kind: Literal["linear"] = "linear"
    normalise: bool = Field(default=True, description="Divide by the sum of the weights.")

    @model_validator(mode="after")
    def _weights_do_not_cancel(self) -> Linear:
        if self.weights and self.normalise and abs(math.fsum(self.weights)) <= 1e-9 * sum(map(abs, self.weights)):
            raise ValueError(f"the weights {self.weights} sum to 0 and cannot be normalised; set normalise: false")
        return self

    def _rule(self, base: Tensor, models: Sequence[Tensor]) -> Rule:
        shares = self._shares(len(models))
        total = math.fsum(shares) if self.normalise else 1.0
        return lambda at, origin, others: _sum(shares, others) / total


class TaskArithmetic(Weighted):
    """θ_0 + Σ w_s δ_s: the changes add up, they are not averaged. By default each weighs 0.3.

    Source: Ilharco et al. 2023, arXiv:2212.04089, section 2; the default is FuseChat's, arXiv:2408.07990.
    """

    kind: Literal["task_arithmetic"] = "task_arithmetic"

    def _rule(self, base: Tensor, models: Sequence[Tensor]) -> Rule:
        shares = [0.3] * len(models) if self.weights is None else self.weights
        return lambda at, origin, others: origin + _sum(shares, _changes(origin, others))


class TIES(Weighted):
    """Trim small changes, elect a sign for each entry, average the changes that agree. By default each weighs 1/S.

    Trim keeps the `density` largest |δ_s| of each model's tensor (rounded down, at least one entry, and all that tie
    with the smallest kept). The elected sign is that of Σ w_s δ_s over the kept; an exact tie elects nobody and the
    entry stays at the base. The mean is Σ w_s δ_s / Σ w_s over the kept changes of the elected sign.

    Source: Yadav et al. 2023, arXiv:2306.01708, algorithm 1, with weights; density 0.6 is FuseChat's, arXiv:2408.07990.
    """

    kind: Literal["ties"] = "ties"
    weights: list[Share] | None = Field(
        default=None, description="One weight a model, in their order; by default all equal."
    )
    density: float = Field(default=0.6, gt=0, le=1, description="Fraction of each model's changes that is kept.")

    @model_validator(mode="after")
    def _somebody_weighs(self) -> TIES:
        if self.weights is not None and not any(self.weights):
            raise ValueError(f"the weights {self.weights} are all 0; at least one must be positive")
        return self

    def _rule(self, base: Tensor, models: Sequence[Tensor]) -> Rule:
        shares = self._shares(len(models))
        # relative to the largest, so that equal weights are exactly 1 and opposite changes cancel exactly
        votes = [share / max(shares) for share in shares]
        floors = [threshold(lambda model=model: _magnitudes(base, model), self.density) for model in models]

        def rule(at: slice, origin: Flat, others: list[Flat]) -> Flat:
            changes = [
                d.where(d.abs().float() >= floor, 0) for d, floor in zip(_changes(origin, others), floors, strict=True)
            ]
            return origin + _agreeing_mean(changes, shares, votes)

        return rule


class SCE(Method):
    """Select entries by variance over the models, calculate each model's weight, erase minority signs.

    Select keeps the entries whose variance of δ over the models is among the `select_topk` largest, counted among the
    variances that are not zero (rounded down, at least one, and all that tie with the smallest kept; compared in
    float32); the others stay at the base. With 1 nothing is selected away, changes common to all included. Calculate:
    ω_s is proportional to the mean square of the selected δ_s. Erase: the sign of an entry is that of Σ δ_s, an exact
    tie leaves it at the base; the result is Σ ω_s δ_s / Σ ω_s over the changes of that sign.

    Source: Wan et al. 2024 (FuseChat), arXiv:2408.07990, section 3.3. The selection applies to the changes themselves,
    as in mergekit; FuseAI's own code applies it to ω only and merges what was not selected too.
    """

    kind: Literal["sce"] = "sce"
    select_topk: float = Field(
        default=0.1, gt=0, le=1, description="Fraction of the entries that vary which is merged."
    )

    def check(self, models: int) -> None:
        """Raises ValueError for one model with a selection: without variance the result would be the base."""
        super().check(models)
        if models == 1 and self.select_topk < 1:
            raise ValueError(
                f"sce selects entries by their variance over models and one model has none: with select_topk "
                f"{self.select_topk} the result would be the base. Give more models, set select_topk to 1, or use ties."
            )

    def _rule(self, base: Tensor, models: Sequence[Tensor]) -> Rule:
        chosen = self._selection(base, models)
        squares = torch.zeros(len(models), dtype=torch.float64, device=base.device)
        for at, origin, others in _blocks(base, models):
            squares += torch.stack([d.where(chosen[at], 0).square().sum() for d in _changes(origin, others)])
        omega = (squares / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)).tolist()  # no change: 0, not NaN

        def rule(at: slice, origin: Flat, others: list[Flat]) -> Flat:
            changes = [change.where(chosen[at], 0) for change in _changes(origin, others)]
            return origin + _agreeing_mean(changes, omega, [1.0] * len(changes))

        return rule

    def _selection(self, base: Tensor, models: Sequence[Tensor]) -> Bool[Tensor, " n"]:
        if self.select_topk == 1:
            return torch.ones(base.numel(), dtype=torch.bool, device=base.device)
        variance = torch.empty(base.numel(), dtype=torch.float32, device=base.device)
        for at, _, others in _blocks(base, models):
            variance[at] = _variance(others)
        return variance >= threshold(lambda: variance.split(BLOCK), self.select_topk, nonzero=True)


AnyMethod = Annotated[Linear | TaskArithmetic | TIES | SCE, Field(discriminator="kind")]
"""What a configuration may name."""

ALL: tuple[type[Method], ...] = (Linear, TaskArithmetic, TIES, SCE)
"""Every method, in the order of the documentation."""


def _blocks(base: Tensor, models: Sequence[Tensor]) -> Iterator[tuple[slice, Flat, list[Flat]]]:
    """Place of a block, the base's entries there, each model's; all in float64."""
    flat = [tensor.reshape(-1) for tensor in (base, *models)]
    for start in range(0, base.numel(), BLOCK):
        at = slice(start, start + BLOCK)
        origin, *others = (tensor[at].double() for tensor in flat)
        yield at, origin, others


def _changes(origin: Flat, others: Sequence[Flat]) -> list[Flat]:
    return [other - origin for other in others]


def _magnitudes(base: Tensor, model: Tensor) -> Iterator[Flat]:
    """|δ| of one model in float32, block by block."""
    for _, origin, (other,) in _blocks(base, [model]):
        yield (other - origin).abs().float()


def _variance(others: Sequence[Flat]) -> Flat:
    """Population variance over the models, of θ and so of δ, in float32; exactly 0 where all are equal."""
    equal = [1 / len(others)] * len(others)
    mean = others[0] + _sum(equal, [other - others[0] for other in others])
    return _sum(equal, [(other - mean).square() for other in others]).float()


def _sum(weights: Sequence[float], parts: Sequence[Flat]) -> Flat:
    total = torch.zeros_like(parts[0])
    for weight, part in zip(weights, parts, strict=True):
        total.add_(part, alpha=weight)
    return total


def _agreeing_mean(changes: Sequence[Flat], weights: Sequence[float], votes: Sequence[float]) -> Flat:
    """Weighted mean of those changes that have the sign of Σ votes · changes; 0 where there are none."""
    elected = _sum(votes, changes).sign()
    agree: list[Bool[Tensor, " n"]] = [change.sign() == elected for change in changes]
    above = _sum(weights, [change.where(a, 0) for change, a in zip(changes, agree, strict=True)])
    below = _sum(weights, [a.double() for a in agree])
    return above / below.where(below > 0, 1.0)
