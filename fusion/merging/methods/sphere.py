"""Methods that treat a tensor as one long vector and look at directions: spherical means and model stock.

Each result is a combination Σ c_s x_s of the tensors (or of their deltas), and the c depend on inner products alone. So one
pass over the tensor gathers the S x S Gram matrix, the geometry happens in S dimensions, and a second pass adds up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from pydantic import Discriminator, Field, Tag, model_validator
from torch import Tensor
from typing_extensions import override

from fusion.merging.methods.base import MergeMethod, WeightedMethod, as_numbers, constant_values, weighted_sum
from fusion.merging.methods.schedule import AsLayers, AsSlices, AsTensors, FiniteFloat, schedule_form
from fusion.merging.methods.tiles import Flat, Rule, TensorStack, Tile

Array = npt.NDArray[np.float64]
UnitFraction = Annotated[
    Annotated[FiniteFloat, Field(ge=0, le=1), Tag("(number)")] | AsLayers | AsTensors | AsSlices,
    Discriminator(schedule_form),
]
PARALLEL_SINE = 1e-6
"""Sine of an angle below which two directions count as parallel or opposite: float64 resolves an angle to 1e-8 only."""


class GramMatrixMethod(MergeMethod, ABC):
    """Σ c_s x_s, with c from the Gram matrix of the x: the models, or their deltas, to which the base is then added."""

    origin: Literal["zero", "base"] = Field(
        default="zero", description="What directions are seen from: zero (whole weights) or the base (deltas)."
    )
    needs_base: ClassVar[bool] = False  # `origin: base` does need it, which is checked where a base is chosen

    @abstractmethod
    def coefficients(self, gram: Array) -> Array:
        """The c_s, given the S x S matrix of inner products of the x."""

    @override
    def rule(self, stack: TensorStack) -> Rule:
        def vectors(tile: Tile) -> list[Flat]:
            return tile.models if self.origin == "zero" else tile.deltas

        def products(tile: Tile) -> Float[Tensor, "S S"]:
            return _gram_matrix(vectors(tile))

        c = self.coefficients(stack.sum_over_tiles(products).cpu().numpy()).tolist()
        if self.origin == "zero":
            return lambda tile: weighted_sum(c, tile.models)
        return lambda tile: weighted_sum(c, tile.deltas).add_(tile.base)


class Slerp(GramMatrixMethod):
    """From the first model (t = 0) to the second (t = 1) at equal angles; norms go from one to the other as well.

    sin((1-t)ω)/sin ω · θ_1 + sin(tω)/sin ω · θ_2 with ω the angle between them; the straight line where they are
    parallel or opposite.

    Source: Shoemake 1985, section 3.3, on tensors that are not normalised.
    """

    kind: Literal["slerp"] = "slerp"
    t: UnitFraction = Field(default=0.5, description="How far to go from the first model to the second.")
    min_models: ClassVar[int] = 2
    max_models: ClassVar[int | None] = 2

    @override
    def coefficients(self, gram: Array) -> Array:
        (t,) = as_numbers([self.t])
        return slerp(gram, t)


class NuSlerp(GramMatrixMethod, WeightedMethod):
    """SLERP with two weights: t = w_2 / (w_1 + w_2). With `origin: base` the deltas are turned, not the weights."""

    kind: Literal["nuslerp"] = "nuslerp"
    min_models: ClassVar[int] = 2
    max_models: ClassVar[int | None] = 2

    @model_validator(mode="after")
    def _weights_do_not_cancel(self) -> NuSlerp:
        numbers = constant_values(self.weights)
        if len(numbers) == 2 and sum(numbers) == 0:
            raise ValueError(f"the weights {numbers} sum to 0")
        return self

    @override
    def coefficients(self, gram: Array) -> Array:
        first, second = self.model_weights(2)
        return slerp(gram, second / (first + second))


class MultiSlerp(GramMatrixMethod, WeightedMethod):
    """The direction of the weighted mean of unit vectors, with the weighted mean of the norms. By default each weighs 1/S.

    Going from that mean along the mean of the tangents, as the method was proposed, ends where it began: the tangents'
    weighted sum is 0. For two models of equal weight it is SLERP at t = 1/2, norms aside.

    Source: Goddard 2025, "Multi-SLERP", goddard.blog.
    """

    kind: Literal["multislerp"] = "multislerp"

    @override
    def coefficients(self, gram: Array) -> Array:
        weights, norms = _normalized(self.model_weights(len(gram))), np.sqrt(np.diag(gram))
        towards = weights / np.where(norms > 0, norms, 1.0)
        return _rescaled(towards, float(weights @ norms), gram)


class Karcher(GramMatrixMethod, WeightedMethod):
    """The point on the sphere with the least sum of w_s · squared angle to the models, with the weighted mean of the norms.

    Found by steps along the mean of the logarithms, until a step is shorter than 1e-12, at most `max_iter` times. Models that
    are 0 have no direction and are left out.

    Source: Karcher 1977; Grove and Karcher 1973.
    """

    kind: Literal["karcher"] = "karcher"
    max_iter: int = Field(default=100, ge=1, description="The most steps that are taken.")

    @override
    def coefficients(self, gram: Array) -> Array:
        weights, norms = _normalized(self.model_weights(len(gram))), np.sqrt(np.diag(gram))
        nonzero = norms > 0
        units = np.where(nonzero, 1 / np.where(nonzero, norms, 1.0), 0.0)
        weights, norm = np.where(nonzero, weights, 0.0), float(weights @ norms)
        mean = _rescaled(weights * units, 1.0, gram)
        for _ in range(self.max_iter):
            cosines = np.clip(units * (gram @ mean), -1, 1)
            angles = np.arccos(cosines)
            sines = np.sin(angles)
            turns = weights * np.where(sines > PARALLEL_SINE, angles / np.where(sines > PARALLEL_SINE, sines, 1.0), 1.0)
            step = turns * units - (turns @ cosines) * mean
            length = np.sqrt(max(step @ gram @ step, 0.0))
            if length < 1e-12:
                break
            mean = _rescaled(np.cos(length) * mean + np.sin(length) / length * step, 1.0, gram)
        return norm * mean


class ModelStock(GramMatrixMethod):
    """θ_0 + t · mean δ_s, where t follows the angle φ between the deltas: t = S cos φ / (1 + (S-1) cos φ).

    cos φ is the mean over all pairs of models; one that did not change has cos φ = 0 with every other. Where the
    denominator is 0 the base stays. One tensor at a time, as the paper's layer-wise form.

    Source: Jang et al. 2024, arXiv:2403.19522, equation 4.
    """

    kind: Literal["model_stock"] = "model_stock"
    origin: Literal["base"] = Field(default="base", description="Deltas are what is compared.")  # pyright: ignore
    needs_base: ClassVar[bool] = True
    min_models: ClassVar[int] = 2

    @override
    def coefficients(self, gram: Array) -> Array:
        models, norms = len(gram), np.sqrt(np.diag(gram))
        scale = np.where(norms > 0, norms, 1.0)
        cosines = np.clip(gram / np.outer(scale, scale), -1, 1)
        cosine = float(cosines[np.triu_indices(models, 1)].mean())
        denominator = 1 + (models - 1) * cosine
        t = models * cosine / denominator if abs(denominator) > 1e-6 else 0.0
        return np.full(models, t / models)


def slerp(gram: Array, t: float) -> Array:
    """Coefficients of two vectors whose combination lies at the fraction `t` of the angle from the first to the second."""
    norms = np.sqrt(np.diag(gram))
    angle = np.arccos(np.clip(gram[0, 1] / norms.prod(), -1, 1)) if norms.all() else 0.0
    if np.sin(angle) < PARALLEL_SINE:
        return np.array([1 - t, t])
    return np.sin(np.array([1 - t, t]) * angle) / np.sin(angle)


def _gram_matrix(x: list[Flat]) -> Float[Tensor, "S S"]:
    products = [a.dot(b) for a in x for b in x]
    return torch.stack(products).view(len(x), len(x))


def _normalized(weights: list[float]) -> Array:
    total = sum(weights)
    if total == 0:
        raise ValueError(f"The weights {weights} sum to 0 and leave no mean; choose others.")
    return np.array(weights) / total


def _rescaled(c: Array, norm: float, gram: Array) -> Array:
    """Scale `c` so that Σ c_s x_s has that norm; zeros where the combination is 0 and has no direction."""
    length = np.sqrt(max(c @ gram @ c, 0.0))
    return c * (norm / length) if length > 0 else np.zeros_like(c)
