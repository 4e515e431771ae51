"""Weights of positions, from how sure a source is there.

`token_scaled` and `power_sum` have mean 1 over the pairs of an example and a source, so that they move weight between positions
and change neither the share of a source nor, on average, the weight of a term; `uncertainty` is a share of the position, of
which the text gets the rest. To weigh sources as well, multiply: `kind: product`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, Pairs
from fusion.core.tail import log_power_sum
from fusion.weighting.base import Weighting
from fusion.weighting.likelihood import finite_gold


class TokenScaled(Weighting):
    """Positions where the source finds the true token unlikely count more; see `token_scaled`.

    Source: TSLD, Kim et al. 2023, arXiv:2308.06744, for one tokenizer and weights that sum to 1 over a sequence;
    here they have mean 1, so that a mean over positions takes the place of the paper's sum over sequences. Ours take the
    token of the source that begins where the pivot's does, and leave padding out (in the published code it takes part).
    """

    kind: Literal["token_scaled"] = "token_scaled"
    temperature: float = Field(default=10.0, gt=0)
    """Divides the cross-entropies, in nats: higher ones make weights more even. The paper's value."""

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @torch.no_grad()
    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """Positive, with mean 1 over the pairs of each example. Raises ValueError where a source's `gold` is not finite."""
        found = []
        for number, (source, pair) in enumerate(zip(sources, pairs, strict=True)):
            at, cost = pivot.example[pair.pivot], -finite_gold(source, number)[pair.source]
            found.append((token_scaled(cost, at, self.temperature) * _pairs_of(at)).float())
        return found


class PowerSum(Weighting):
    """Positions count by the sum of the source's probabilities to the power gamma: 1 where it is certain, more where not.

    Source: the weight of WTTM, Zheng and Yang 2024, arXiv:2402.11148, divided by its mean over the example. With
    the transform `power` at the same gamma and forward KL it makes their whole term.
    """

    kind: Literal["power_sum"] = "power_sum"
    gamma: float = Field(gt=0, le=1)
    """The power, the inverse of a temperature. The paper's are 0.1 and 0.2 over a thousand classes; over a vocabulary, 0.5 to
    0.9 is our guess."""
    tail: Literal["exact", "single"] = "exact"
    """What is assumed of the mass outside a row's entries; see `log_power_sum`. `exact` needs whole rows."""

    @property
    @override
    def required_top_k(self) -> int | None:
        return None if self.tail == "exact" else 0

    @property
    @override
    def exact_entries(self) -> bool:
        return True  # a power of an estimate is biased

    @torch.no_grad()
    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """Positive, with mean 1 over the pairs of each example."""
        found = []
        for source, pair in zip(sources, pairs, strict=True):
            at = pivot.example[pair.pivot]
            sums = log_power_sum(source.logprobs[pair.source].double(), self.gamma, self.tail).exp()
            found.append((sums / _sums(sums, at) * _pairs_of(at)).float())
        return found


class Uncertainty(Weighting):
    """Positions count by 1 less the probability of the source's likeliest token: little where it is sure, at most 1.

    For soft and hard labels mixed by position, on the source's own answers: with `forward_kl` of weight 1 and `cross_entropy`
    with `use_remaining_weight`, each row is learned from (1 - w) of the token that follows and w of the source's distribution.

    Source: arXiv:2605.26246, which mixes with a share of soft labels of 1 less the teacher's greatest probability, for one
    teacher and one tokenizer; here positions that the source does not match are learned from the text alone.
    """

    kind: Literal["uncertainty"] = "uncertainty"

    @property
    @override
    def required_top_k(self) -> int | None:
        return 1

    @property
    @override
    def exact_entries(self) -> bool:
        return True  # of entries that were drawn the greatest is not the source's greatest

    @torch.no_grad()
    def __call__(
        self, pivot: LogitRows, sources: Sequence[LogitRows], pairs: Sequence[Pairs]
    ) -> list[Float[Tensor, " _"]]:
        """Between 0 and 1."""
        largest = [source.top(1).logprobs[pair.source, 0] for source, pair in zip(sources, pairs, strict=True)]
        # of the float32 log-probability -1e-8 a float32 exp would leave nothing
        return [(-torch.expm1(each.double())).clamp(0, 1).float() for each in largest]


def token_scaled(cost: Float[Tensor, " M"], example: Int[Tensor, " M"], temperature: float) -> Float[Tensor, " M"]:
    """Softmax of cost / temperature over the tokens of each example: positive, 1 in sum over an example."""
    number = example.unique(return_inverse=True)[1]
    count = int(number.max()) + 1 if len(number) else 0
    scaled = cost / temperature
    largest = scaled.new_zeros(count).scatter_reduce(0, number, scaled, "amax", include_self=False)
    worth = (scaled - largest[number]).exp()
    return worth / _sums(worth, example)


def _sums(values: Float[Tensor, " M"], example: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """For each pair, the sum of `values` over the pairs of its example."""
    number = example.unique(return_inverse=True)[1]
    count = int(number.max()) + 1 if len(number) else 0
    return values.new_zeros(count).index_add(0, number, values)[number]


def _pairs_of(example: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """For each pair, how many its example has."""
    return _sums(torch.ones(len(example), dtype=torch.float64, device=example.device), example)
