"""The likeliest tokens alone."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.core.tail import log_left_over
from fusion.transforms.base import SourceTransform


class TopKUniform(SourceTransform):
    """Keeps the K likeliest entries; all other tokens share what is left over evenly.

    How much of a source's worth is in its likeliest tokens? Where the true token is not among them it has an even share,
    which `gold` then says. (A term's own `top_k` keeps `gold`, and the rest for that term alone.)

    Source: the partial teacher KD-topk of Tang et al. 2020, arXiv:2002.03532. Its details we know at second hand only.
    """

    kind: Literal["topk_uniform"] = "topk_uniform"
    top_k: int = Field(default=5, ge=1)
    """How many are kept."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return self.top_k

    def __call__(self, rows: LogitRows, vocabulary: int) -> LogitRows:
        """The changed rows; their moments are those of the changed logits."""
        kept = rows.top(self.top_k)
        there = ~kept.logprobs.isneginf()
        others = vocabulary - there.sum(-1)
        each = log_left_over(kept.logprobs) - others.clamp(min=1).log()
        least = kept.logprobs.masked_fill(~there, 0).amin(-1)
        gold = kept.gold.where((kept.gold >= least) | kept.gold.isnan(), each)
        values = kept.logprobs.masked_fill(~there, 0)
        mean = (values.sum(-1) + others * each) / vocabulary
        spread = _squares(values, there, mean) + others * (each - mean) ** 2
        return dataclasses.replace(kept, gold=gold, mean=mean, std=(spread / vocabulary).sqrt())


def _squares(values: Tensor, there: Tensor, mean: Tensor) -> Tensor:
    return ((values - mean[:, None]) ** 2).masked_fill(~there, 0).sum(-1)
