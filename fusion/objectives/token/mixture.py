"""All sources as one: their mixture, on the tokens that any of them names, taught as a single source would be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes import AllSourcesObjective
from fusion.objectives.token.divergences import L1, ForwardKL, JensenShannon, ReverseKL, SkewedKL
from fusion.objectives.token.llp import LLP
from fusion.objectives.token.nkd import NKD
from fusion.objectives.token.one_vs_rest import OneVsRest
from fusion.objectives.token.plackett_luce import PlackettLuce
from fusion.objectives.token.topkd import TopKDecoupled

AnyMapped = Annotated[
    ForwardKL | ReverseKL | JensenShannon | SkewedKL | L1 | PlackettLuce | NKD | OneVsRest | TopKDecoupled | LLP,
    Field(discriminator="kind"),
]


class Mixture(AllSourcesObjective):
    """A term on mapped rows, with the mixture of all sources as its source; see `mixture`.

    Where terms against each source are summed, the pivot is pulled to several distributions at once; here to one. Shares are
    the weights of the sources at the row, divided by their sum; the value counts by that sum.
    """

    kind: Literal["mixture"] = "mixture"
    objective: AnyMapped = ForwardKL()
    """The objective on mapped rows."""

    @field_validator("objective")
    @classmethod
    def _weighted_once(cls, objective: AnyMapped) -> AnyMapped:
        if objective.weight != 1 or objective.select is not None:
            raise ValueError("set weight on the mixture, not inside `objective`; select has no meaning there either")
        return objective

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return self.objective.required_source_fields

    @property
    @override
    def requirements(self) -> Requirements:
        # a mixture is linear: entries may be drawn at random where the objective reads them linearly
        return dataclasses.replace(super().requirements, exact_entries=self.objective.requirements.exact_entries)

    def __call__(
        self, pivot: LogitRows, sources: Mapping[str, MappedRows], share: Float[Tensor, "S M"]
    ) -> Float[Tensor, " M"]:
        """One value for each row."""
        one = mixture(sources, share)
        return self.objective(dataclasses.replace(pivot, ids=one.ids), one)


def mixture(sources: Mapping[str, MappedRows], share: Float[Tensor, "S M"]) -> MappedRows:
    """Rows of the mixture, sum over sources of share times probability, on the union of their ids.

    What a source gives to ids that only others name is not known: it stays in what is left over. So an entry is never above
    the true mixture's, and what is left over never below. `gold` is NaN where a source with a share does not know it.
    """
    rows, silent, log_share = list(sources.values()), share == 0, share.log()
    gold = torch.stack([row.pivot_token_logprob for row in rows]).to(share) + log_share
    gold = gold.masked_fill(silent, -torch.inf).logsumexp(0)
    logprobs = torch.cat(
        [row.logprobs.to(share) + own[:, None] for row, own in zip(rows, log_share, strict=True)], dim=1
    )
    ids = torch.cat([row.ids.masked_fill(none[:, None], -1) for row, none in zip(rows, silent, strict=True)], dim=1)
    unknown = torch.full_like(gold, torch.nan)
    return dataclasses.replace(
        rows[0],
        logprobs=logprobs,
        ids=ids,
        pivot_token_logprob=gold,
        mean=unknown,
        std=unknown,
        sample_counts=_counts(rows, silent),
    ).pooled()


def _counts(rows: Sequence[MappedRows], silent: Bool[Tensor, "S M"]) -> Int[Tensor, "M K"] | None:
    """How often each entry was drawn, where any was."""
    every = [row.ids.new_zeros(row.ids.shape) if row.sample_counts is None else row.sample_counts for row in rows]
    counts = torch.cat([c.masked_fill(none[:, None], 0) for c, none in zip(every, silent, strict=True)], dim=1)
    return None if all(row.sample_counts is None for row in rows) else counts
