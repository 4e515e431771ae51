"""Sources weighed against each other by what they know of the text.

Sources are compared by the log-probability they give to the text that really follows. Over one row that is the `gold`
of their matched rows. Their tokens differ in length, so a longer piece of text is fairer: a *span* of text, from one boundary
that all sources share to the next, or the whole example. A span's log-likelihood is the sum of a source's `gold` over
its rows in it. The last span ends where the shortest of the sources ends, so that all have read the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, Pairs
from fusion.weighting.base import Weighting


class GoldPosterior(Weighting):
    """A source counts by the probability it gave the true text: Bayes' rule over sources with equal priors.

    At level `position` the weights of the sources that have a pair at a row sum to 1. At the longer levels the sources
    that take part in an example are compared, and all rows of a span share the outcome; so a row that only a poor
    source matches counts little, instead of counting fully for want of a better one. In a
    `product` with a weighting that has priors, such as `eligibility`, those are the priors of Bayes' rule.
    """

    kind: Literal["gold_posterior"] = "gold_posterior"
    takes_priors: ClassVar[bool] = True
    level: Literal["position", "span", "example"] = "position"
    """How much text a comparison looks at: the next token, the text between shared boundaries, or all of it."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the log-likelihoods: above 1 the weights are more even."""

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @torch.no_grad()
    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """Between 0 and 1. Raises ValueError where a source's `gold` is not finite."""
        if not sources:
            return []
        score, place = self._likelihoods(pivot, sources, pairs)
        return _at_pairs((score / self.temperature).softmax(0), place, pairs)

    @torch.no_grad()
    @override
    def with_priors(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs], priors: Float[Tensor, "S E"]
    ) -> list[Float[Tensor, " _"]]:
        score, place = self._likelihoods(pivot, sources, pairs)
        example = pivot.example.new_zeros(score.shape[1]).scatter(0, place, pivot.example)
        # the temperature evens out likelihoods; a prior is as it is
        return _at_pairs((score / self.temperature + priors.to(score).log()[:, example]).softmax(0), place, pairs)

    def _likelihoods(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> tuple[Float[Tensor, "S places"], Int[Tensor, " N"]]:
        """Log-likelihood of the text at each place under each source, and the place that each pivot row lies in."""
        if self.level == "position":
            return _gold_at(pivot, sources, pairs), torch.arange(len(pivot), device=pivot.prefix.device)
        return span_likelihoods(pivot, sources, pairs, self.level)


class MinimumCrossEntropy(Weighting):
    """In each example only the source that finds the shared text most likely counts; the first of equals (FuseLLM)."""

    kind: Literal["minimum_cross_entropy"] = "minimum_cross_entropy"
    takes_priors: ClassVar[bool] = True

    @property
    @override
    def selects_one_source(self) -> bool:
        return True

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @torch.no_grad()
    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """1 or 0. Raises ValueError where a source's `gold` is not finite."""
        if not sources:
            return []
        score, place = span_likelihoods(pivot, sources, pairs, "example")
        best = torch.zeros_like(score).scatter(0, score.argmax(0, keepdim=True), 1.0)
        return _at_pairs(best, place, pairs)

    @override
    def with_priors(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs], priors: Float[Tensor, "S E"]
    ) -> list[Float[Tensor, " _"]]:
        return self(pivot, sources, pairs)  # of those that may count at all the likeliest, fully


class MaxMargin(Weighting):
    """Only the source counts whose likelihood of the text differs most from the pivot's, before training, either way.

    Source: the max-margin fusion of InfiFPO, arXiv:2505.13878, section 3.2, of whole responses there. A source that is far
    worse than the pivot differs as well: look at *is this source helping?* first.
    """

    kind: Literal["max_margin"] = "max_margin"
    takes_priors: ClassVar[bool] = True
    level: Literal["span", "example"] = "example"
    """How much text a comparison looks at: the text between shared boundaries, or all of it (the paper's)."""

    @property
    @override
    def selects_one_source(self) -> bool:
        return True

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @property
    @override
    def required_pivot_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @torch.no_grad()
    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """1 or 0. Raises ValueError where the `gold` of a source or of the pivot is not finite."""
        if not sources:
            return []
        if unknown := int((~pivot.gold.isfinite()).sum()):
            raise ValueError(
                f"max_margin compares sources with the pivot, and {unknown} of {len(pivot)} rows of the pivot hold no "
                "log-probability of the true token. Give the pivot's rows as extracted before training."
            )
        itself = torch.arange(len(pivot), device=pivot.prefix.device)
        score, place = span_likelihoods(pivot, [*sources, pivot], [*pairs, Pairs(itself, itself)], self.level)
        margin = (score[:-1] - score[-1]).abs().masked_fill(score[:-1].isneginf(), -1)
        best = torch.zeros_like(margin).scatter(0, margin.argmax(0, keepdim=True), 1.0)
        return _at_pairs(best, place, pairs)

    @override
    def with_priors(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs], priors: Float[Tensor, "S E"]
    ) -> list[Float[Tensor, " _"]]:
        return self(pivot, sources, pairs)  # of those that may count at all the one that differs most, fully


def span_likelihoods(
    pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs], level: Literal["span", "example"]
) -> tuple[Float[Tensor, "S spans"], Int[Tensor, " N"]]:
    """Log-likelihood of each span under each source, in nats, and the number of the span that each pivot row lies in.

    -inf marks a source that takes no part in the span's example, for it has no pair there. The start of an example is
    always a boundary, so text before the first match counts as well.
    """
    match = _matches(pivot, pairs)
    every = [pivot, *sources]
    names, number = torch.cat([rows.example for rows in every]).unique(return_inverse=True)
    pivot_number, *source_numbers = number.split([len(rows) for rows in every])
    takes_part = match.new_zeros(len(sources), len(names)).index_add(1, pivot_number, (match >= 0).long()) > 0
    starts = torch.cat([pivot_number.new_ones(min(1, len(pivot_number))), pivot_number.diff()]) != 0
    cut = starts | ((match >= 0) | ~takes_part[:, pivot_number]).all(0) if level == "span" else starts

    row = cut.nonzero()[:, 0]
    text, at = pivot_number[row], match[:, row]
    opening, closing = _extents(sources, source_numbers, takes_part)
    begin = torch.where(at >= 0, at, opening[:, text])
    is_last = torch.cat([starts[row][1:], starts.new_ones(min(1, len(row)))])
    end = torch.where(is_last, closing[:, text], begin.roll(-1, dims=1)).maximum(begin)
    score = torch.stack([_sums(finite_gold(source, i), begin[i], end[i]) for i, source in enumerate(sources)])
    return score.masked_fill(~takes_part[:, text], -torch.inf), cut.cumsum(0) - 1


def _extents(
    sources: Sequence[LogitRows], numbers: Sequence[Int[Tensor, " _"]], takes_part: Bool[Tensor, "S E"]
) -> tuple[Int[Tensor, "S E"], Int[Tensor, "S E"]]:
    """A source's first row of an example, and one past its last row within the text that all sources have read."""
    examples = takes_part.shape[1]
    reach = torch.stack([_largest(s.prefix, n, examples) for s, n in zip(sources, numbers, strict=True)])
    shared = reach.masked_fill(~takes_part, torch.iinfo(reach.dtype).max).amin(0)
    opening, closing = [], []
    for source, number in zip(sources, numbers, strict=True):
        row = torch.arange(len(source), device=number.device)
        opening.append(-_largest(-row, number, examples))
        beyond = (source.prefix < 0) | (source.prefix > shared[number])
        closing.append(_largest((row + 1).masked_fill(beyond, 0), number, examples))
    return torch.stack(opening), torch.stack(closing)


def _largest(values: Int[Tensor, " N"], number: Int[Tensor, " N"], count: int) -> Int[Tensor, " E"]:
    """The largest value with each number; 0 for a number without values."""
    return values.new_zeros(count).scatter_reduce(0, number, values, "amax", include_self=False)


def _matches(pivot: LogitRows, pairs: Sequence[Pairs]) -> Int[Tensor, "S N"]:
    """Each source's row matched with each pivot row, -1 for none."""
    none = torch.full((len(pivot),), -1, dtype=torch.long, device=pivot.prefix.device)
    return torch.stack([none.index_copy(0, pair.pivot.long(), pair.source.long()) for pair in pairs])


def _gold_at(pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]) -> Float[Tensor, "S N"]:
    """Log-probability each source gives its next token at each pivot row; -inf without a pair."""
    none = torch.full((len(pivot),), -torch.inf, dtype=torch.float64, device=pivot.prefix.device)
    golds = [finite_gold(source, i)[pair.source] for i, (source, pair) in enumerate(zip(sources, pairs, strict=True))]
    return torch.stack([none.index_copy(0, p.pivot.long(), gold) for p, gold in zip(pairs, golds, strict=True)])


def _sums(
    gold: Float[Tensor, " N"], begin: Int[Tensor, " spans"], end: Int[Tensor, " spans"]
) -> Float[Tensor, " spans"]:
    """Sum of `gold` from row `begin` up to, not including, row `end`."""
    running = torch.cat([gold.new_zeros(1), gold.cumsum(0)])
    return running[end] - running[begin]


def finite_gold(source: LogitRows, number: int) -> Float[Tensor, " N"]:
    """`gold` in float64, for running sums over a whole batch are subtracted from each other."""
    if unknown := int(source.gold.isnan().sum()):
        raise ValueError(
            f"Weighting by likelihood needs the log-probability of the true token, and {unknown} of {len(source)} rows "
            f"of source {number} do not know it (NaN). Give the source a backend that knows it, or use kind: sum or mean."
        )
    if wrong := int(source.gold.isinf().sum()):
        raise ValueError(
            f"Weighting by likelihood adds up log-probabilities of true tokens, and in {wrong} of {len(source)} rows of source "
            f"{number} it is infinite: the source masks (-inf) a token that stands in the text. Leave those examples out, or "
            "use kind: sum or mean."
        )
    return source.gold.double()


def _at_pairs(
    weight: Float[Tensor, "S places"], place: Int[Tensor, " N"], pairs: Sequence[Pairs]
) -> list[Float[Tensor, " _"]]:
    """Look up, for each pair of each source, the weight of the span (or row) that its pivot row lies in; float32."""
    return [row[place[pair.pivot]].float() for row, pair in zip(weight, pairs, strict=True)]
