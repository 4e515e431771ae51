"""Each token against all others: one binary question a token."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base_classes import MappedObjective
from fusion.objectives.span.span_likelihood import two_outcomes
from fusion.objectives.token.outcomes import compare


class OneVsRest(MappedObjective):
    """Sum over tokens (and `other`) of |P - p|^beta times KL of `this token` or `any other`, source against pivot.

    Never below KL(source ‖ pivot) at beta = 0, and exactly twice it where there are two outcomes. Needs no normalisation over
    the vocabulary, so entries that are not mapped cost nothing. The weight |P - p|^beta is a constant for the gradient.

    Source: the classification term of BCKD, Yang et al. 2023, arXiv:2308.14286. Detectors score each class with a sigmoid;
    a language model's logits have a level that means nothing, so the questions here are about softmax probabilities, whose
    log-odds do have one. That detaches the paper's motive (softmax cannot see a shift of all logits): here that is no
    defect. Its term for boxes has no counterpart in text.
    """

    kind: Literal["one_vs_rest"] = "one_vs_rest"
    beta: float = Field(default=1.0, ge=0)
    """Power of the difference that weighs each token; 0 weighs all the same. The paper's is 1."""
    mode: Literal["logodds"] = "logodds"
    """What is asked for each token: the log-odds of its softmax probability."""
    top_k: int | None = Field(default=None, ge=1)
    """Use at most this many of the source's entries, the most likely ones; None uses all that are mapped."""

    @field_validator("mode", mode="before")
    @classmethod
    def _refuse_raw(cls, value: Any) -> Any:
        if value == "raw":
            raise ValueError(
                "mode: raw compares the logits themselves, whose level a language model never fixes, and rows do not hold it. "
                "Use mode: logodds"
            )
        return value

    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """One value for each pair, in nats, never negative."""
        both = compare(pivot, source, self.top_k).with_other()
        log_p, log_q = both.source.masked_fill(both.empty, -1), both.pivot.masked_fill(both.empty, -1)
        weight = (log_p.exp() - log_q.detach().exp()).abs() ** self.beta
        return (weight * two_outcomes(log_p, log_q)).masked_fill(both.empty, 0).sum(-1)
