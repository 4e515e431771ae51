"""Likelihoods of whole spans of text, so that no position is wasted where tokens differ in length."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fusion.core.tail import log1mexp
from fusion.objectives.base_classes import SpanObjective


class SpanLikelihood(SpanObjective):
    """Divergence between two answers to one question, how likely this span of text is; see `two_outcomes`.

    Between two boundaries that both models share, each has a log-probability of the text, the sum over its own tokens. So
    every row takes part, matched or not, whatever the vocabularies are. It tells the pivot how sure to be of the given text
    and nothing of other texts.

    Source: approximate likelihood matching, Minixhofer et al. 2025, arXiv:2503.20083, with the Kullback-Leibler divergence
    and without its debiasing of boundaries.
    """

    kind: Literal["span_likelihood"] = "span_likelihood"
    temperature: float = Field(default=1.0, ge=1)
    """Both log-probabilities are divided by it: higher ones listen to unlikely spans too."""

    def __call__(self, pivot: Float[Tensor, " M"], source: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
        """One value for each span, in nats: never negative, and 0 where both find it equally likely."""
        return two_outcomes(source.detach().to(pivot.dtype) / self.temperature, pivot / self.temperature)


def two_outcomes(log_p: Float[Tensor, "*M"], log_q: Float[Tensor, "*M"]) -> Float[Tensor, "*M"]:
    """KL between `this` and `anything else`, in nats: p log(p / q) + (1-p) log((1-p) / (1-q)).

    Never negative, 0 where p = q, and never above a KL over finer outcomes of which `this` is one.
    """
    # clamp: a certain outcome leaves nothing over, and the log of that would be -inf
    least = -torch.finfo(log_q.dtype).eps
    log_p, log_q = log_p.clamp(max=least), log_q.clamp(max=least)
    return log_p.exp() * (log_p - log_q) + (-torch.expm1(log_p)) * (log1mexp(log_p) - log1mexp(log_q))
