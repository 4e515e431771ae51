"""A source composed of two: what an expert says, and further away from what its opposite says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import AllSourcesObjective
from fusion.objectives.checks import as_target
from fusion.objectives.token.outcomes import divergence, log_softmax


class AlignDistil(AllSourcesObjective):
    """KL(pivot ‖ composed source), weighted: the composed logits are z + a (z - z'), z the expert's and z' the opposite's.

    The further apart the two are at a position, the more is added (a) and the less the pivot is held to it (beta / a). Meant
    for two models with the pivot's tokenizer, say tuned on preferences and on the same preferences reversed. Both must be known
    on the same tokens, which two separate top-K caches are not: a configuration must extract whole rows. Tokens that either
    lacks (control tokens that are not mapped) take no part, and rows where either is missing count 0.

    Source: AlignDistil, Zhang et al. 2025, arXiv:2503.02832, its contrastive and adaptive form, on the cached text.
    """

    kind: Literal["aligndistil"] = "aligndistil"
    expert: str
    """Name of the source that is followed."""
    opposite: str
    """Name of the source that is avoided."""
    ratio: float = Field(default=10.0, ge=0)
    """How fast a grows with the distance of the two; the paper's value for given text."""
    eps: float = Field(default=1e-3, gt=0)
    """Least value of a."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull; the paper's value."""

    @model_validator(mode="after")
    def _two(self) -> AlignDistil:
        if self.expert == self.opposite:
            raise ValueError(f"expert and opposite are both {self.expert}; name two sources")
        return self

    @property
    @override
    def required_top_k(self) -> int | None:
        return None

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, source_names=frozenset({self.expert, self.opposite}))

    def __call__(
        self, pivot: LogitRows, sources: Mapping[str, MappedRows], share: Float[Tensor, "S M"]
    ) -> Float[Tensor, " M"]:
        """One value for each row, in nats, never negative."""
        places = {name: place for place, name in enumerate(sources)}
        both = (share[places[self.expert]] > 0) & (share[places[self.opposite]] > 0)
        expert, opposite = (as_target(sources[name], pivot).select(both) for name in (self.expert, self.opposite))
        start = sum(rows.k for rows in list(sources.values())[: places[self.expert]])
        log_q = pivot.logprobs[both, start : start + expert.k]  # what the pivot says of the expert's ids
        log_n = logprobs_of(opposite, expert.ids)
        missing = expert.logprobs.isneginf() | log_n.isneginf()
        a = extrapolation(expert.logprobs, log_n, self.ratio, self.eps)
        teacher = log_softmax(compose(expert.logprobs, log_n, a), missing)
        return torch.zeros_like(pivot.gold).masked_scatter(
            both, self.beta / a * divergence(log_softmax(log_q, missing), teacher)
        )


def extrapolation(
    expert: Float[Tensor, "M V"], opposite: Float[Tensor, "M V"], ratio: float, eps: float
) -> Float[Tensor, " M"]:
    """a = ratio times the total variation between the two, plus eps: from eps to ratio + eps."""
    return ratio * (expert.exp() - opposite.exp()).abs().sum(-1) / 2 + eps


def compose(
    expert: Float[Tensor, "M V"], opposite: Float[Tensor, "M V"], a: Float[Tensor, " M"]
) -> Float[Tensor, "M V"]:
    """Logits z + a (z - z'), up to a constant of the row; 0 where either is -inf."""
    missing = expert.isneginf() | opposite.isneginf()
    z, other = expert.masked_fill(missing, 0), opposite.masked_fill(missing, 0)
    return z + a[:, None] * (z - other)


def logprobs_of(rows: MappedRows, ids: Int[Tensor, "M V"]) -> Float[Tensor, "M V"]:
    """The rows' log-probability of each of `ids`; -inf where they do not name it."""
    width = 1 + max(int(each.max()) if each.numel() else 0 for each in (ids, rows.ids))
    by_id = rows.logprobs.new_full((len(rows), width + 1), -torch.inf)
    by_id = by_id.scatter(1, torch.where(rows.ids < 0, width, rows.ids), rows.logprobs)
    return by_id.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf)
