"""InfiFusion's token-level term: the shape of the K largest logits, compared by rank after standardisation."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import PairObjective
from fusion.objectives.checks import as_target, full_top


class InfiFusion(PairObjective):
    """L1 distance of the standardised top-K profiles; see `rank_distance` and `standardise`.

    Blind to token identity: it can teach how a distribution falls off, never which token is likely. With `zscore` a positive
    factor or a constant on either model's logits changes nothing, so it teaches no confidence either, and with the defaults
    each value is at most sqrt(2 K (K - 1)), 13.42 at K = 10.
    """

    kind: Literal["infifusion"] = "infifusion"
    top_k: int = Field(default=10, json_schema_extra={"minimum": 3})
    """Entries of each row that are compared, at least 3."""
    zscore: bool = True
    """Standardise the values of each row first; without it log-probabilities are compared as they are, and confidence too."""
    post: Literal["none", "softmax"] = "none"
    """What is done to the values before comparing. `none` is a guess: the paper's figure shows none."""
    unbiased: bool = True
    """Divide by K-1 in the standard deviation instead of K. A guess: the paper does not say."""
    eps: float = Field(default=1e-7, gt=0)
    """Added to the standard deviation. A guess: the paper does not say."""

    @field_validator("top_k")
    @classmethod
    def _at_least_three(cls, top_k: int) -> int:
        if top_k < 3:
            raise ValueError(
                f"needs top_k >= 3, got {top_k}: two values always standardise to the same pair, and one to 0, "
                "so the term would be constant and its gradient zero"
            )
        return top_k

    @property
    @override
    def required_top_k(self) -> int | None:
        return self.top_k

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, logit_scale=not self.zscore)

    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """One value for each pair. Raises ValueError where a row has fewer than `top_k` entries."""
        pivot_top = full_top(pivot, self.top_k, "pivot").logprobs
        source_top = full_top(as_target(source, pivot), self.top_k, "source").logprobs
        return rank_distance(self._profile(pivot_top), self._profile(source_top))

    def _profile(self, values: Float[Tensor, "M K"]) -> Float[Tensor, "M K"]:
        scores = standardise(values, self.eps, self.unbiased) if self.zscore else values
        return scores if self.post == "none" else scores.softmax(-1)


def standardise(values: Float[Tensor, "M K"], eps: float = 1e-7, unbiased: bool = True) -> Float[Tensor, "M K"]:
    """(value - mean) / (std + eps) over the kept values of each row. Gradients flow through mean and std as well.

    The constant that distinguishes logits from log-probabilities cancels, so either may be given.

    Source: InfiFusion, arXiv:2501.02795v3, the step after Top-K in the method figure; eps and the unbiased std as
    in Sun et al. 2024, arXiv:2403.01427.
    """
    centred = values - values.mean(-1, keepdim=True)
    # the norm's gradient is 0 at 0, where a square root's would be infinite: rows of equal values give no NaN
    std = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / math.sqrt(values.shape[-1] - unbiased)
    return centred / (std + eps)


def rank_distance(pivot: Float[Tensor, "M K"], source: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """Sum over ranks of the absolute difference; both in descending order."""
    return (pivot - source).abs().sum(-1)
