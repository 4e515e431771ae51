"""Which joined rows count. Rows that do not have weight 0 and stay in the mean's denominator."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from jaxtyping import Bool
from pydantic import Field
from torch import Tensor

from fusion.core.rows import LogitRows
from fusion.core.settings import Settings


class Confident(Settings):
    """Rows where a model is sure of its next token.

    With `either` a mistake that the pivot is sure of is corrected although the source is not sure.

    Source: the bilateral selection of Li et al. 2023, arXiv:2308.10308, of regions there, of rows here. Its mask is left
    out: read literally, the least of a sum of m times a disparity that is never negative, m in [0, 1], is m = 0 everywhere.
    """

    kind: Literal["confident"] = "confident"
    needs: ClassVar[frozenset[str]] = frozenset()
    threshold: float = Field(gt=0, le=1)
    """Least probability of the most likely token."""
    of: Literal["either", "source", "pivot"] = "either"
    """Whose."""

    @property
    def reads_entries(self) -> bool:
        """Whether it looks at the source's entries, which then may not be drawn at random."""
        return self.of != "pivot"

    def __call__(self, pivot: LogitRows, source: LogitRows) -> Bool[Tensor, " M"]:
        """Whether each joined row counts. Both sides keep at least their largest entry."""
        sure = {name: self._sure(rows) for name, rows in (("pivot", pivot), ("source", source))}
        return sure["pivot"] | sure["source"] if self.of == "either" else sure[self.of]

    def _sure(self, rows: LogitRows) -> Bool[Tensor, " M"]:
        return rows.logprobs.detach().exp().amax(-1) >= self.threshold


class KnowsMore(Settings):
    """Rows where the source finds the true token likelier than the pivot does at this step of training.

    There a forward KL whose entries hold the true token never lowers that token's probability, so a source that knows
    less than what the pivot has learned meanwhile does no harm. Where the text is wrong, a source that knows better is
    not heard. A row whose `gold` is not known (NaN) does not count. Terms on mapped tokens compare both on the pivot's
    token; other terms compare each on its own next token, where a shorter one has an advantage.
    """

    kind: Literal["knows_more"] = "knows_more"
    needs: ClassVar[frozenset[str]] = frozenset({"gold"})
    reads_entries: ClassVar[bool] = False
    by: float = 0.0
    """Least difference of the two log-probabilities, in nats, itself left out."""

    def __call__(self, pivot: LogitRows, source: LogitRows) -> Bool[Tensor, " M"]:
        """Whether each joined row counts."""
        return source.gold - pivot.gold.detach().to(source.gold) > self.by


Selection = Annotated[Confident | KnowsMore, Field(discriminator="kind")]
