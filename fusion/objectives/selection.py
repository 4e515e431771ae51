"""Which matched rows count. Rows that do not have weight 0 and stay in the mean's denominator."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from fusion.core.rows import EntryRows, LogitRows
from fusion.core.settings import Settings


class Confident(Settings):
    """Rows where a model is sure of its next token.

    With `either` a mistake that the pivot is sure of is corrected although the source is not sure.

    Source: the bilateral selection of Li et al. 2023, arXiv:2308.10308, of regions there, of rows here. Its mask is left
    out: read literally, the least of a sum of m times a disparity that is never negative, m in [0, 1], is m = 0 everywhere.
    """

    kind: Literal["confident"] = "confident"
    required_source_fields: ClassVar[frozenset[str]] = frozenset()
    threshold: float = Field(gt=0, le=1)
    """Least probability of the most likely token."""
    model: Literal["either", "source", "pivot"] = "either"
    """Which model must be sure."""

    @property
    def exact_entries(self) -> bool:
        """Whether it looks at the source's entries, which then may not be drawn at random."""
        return self.model != "pivot"

    def __call__(self, pivot: LogitRows, source: EntryRows, source_logprob: Float[Tensor, " M"]) -> Bool[Tensor, " M"]:
        """Whether each matched row counts. Both sides keep at least their largest entry."""
        sure = {name: self._is_sure(rows) for name, rows in (("pivot", pivot), ("source", source))}
        return sure["pivot"] | sure["source"] if self.model == "either" else sure[self.model]

    def _is_sure(self, rows: EntryRows) -> Bool[Tensor, " M"]:
        return rows.logprobs.detach().exp().amax(-1) >= self.threshold


class KnowsMore(Settings):
    """Rows where the source finds the true token likelier than the pivot does at this step of training.

    There a forward KL whose entries hold the true token never lowers that token's probability, so a source that knows
    less than what the pivot has learned meanwhile does no harm. Where the text is wrong, a source that knows better is
    not heard. A row where the source's log-probability is not known (NaN) does not count. Terms on mapped tokens compare
    both on the pivot's token; other terms compare each on its own next token, where a shorter one has an advantage.
    """

    kind: Literal["knows_more"] = "knows_more"
    required_source_fields: ClassVar[frozenset[str]] = frozenset({"gold"})
    exact_entries: ClassVar[bool] = False
    margin: float = 0.0
    """By how much more, in nats, the source's log-probability must exceed the pivot's."""

    def __call__(self, pivot: LogitRows, source: EntryRows, source_logprob: Float[Tensor, " M"]) -> Bool[Tensor, " M"]:
        """Whether each matched row counts; `source_logprob`: what the source gives to the token that follows."""
        return source_logprob - pivot.gold.detach().to(source_logprob) > self.margin


Selection = Annotated[Confident | KnowsMore, Field(discriminator="kind")]
