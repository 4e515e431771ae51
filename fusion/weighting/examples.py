"""Weights of whole examples, whatever the rows say: sources drawn by chance, shares of domains, and who answered rightly."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import override

from fusion.core.example import ExampleInfo
from fusion.weighting.base import Weighting

ALL_DOMAINS = "*"
"""Stands for all domains that are not named."""


class RandomSource(Weighting):
    """At each step one source is drawn, and only it counts. The same seed, step and example draw the same again.

    The pivot as it was before training can be one of the sources, with a transform such as logit_swap.

    Source: the second stage of a later code of UniPLV, arXiv:2412.18131 (points of a scene; its link to the paper is our
    inference), which draws among two image networks and the student once a step.
    """

    kind: Literal["random_source"] = "random_source"
    probabilities: list[float] | None = None
    """Of each source, in their order; equal if not said."""
    per: Literal["step", "example"] = "step"
    """What a draw is for: all examples of a step, or each of them."""
    start: int = Field(default=0, ge=0)
    """Steps at the beginning in which the first source alone counts."""
    seed: int = 0
    """Seed of the draws."""

    @field_validator("probabilities")
    @classmethod
    def _sum_to_one(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and (min(value, default=0) < 0 or abs(sum(value) - 1) > 1e-6):
            raise ValueError(f"must not be negative and sum to 1, got {value}, which sum to {sum(value):g}")
        return value

    @property
    @override
    def selects_one_source(self) -> bool:
        return True

    @property
    @override
    def changes_with_steps(self) -> bool:
        return True

    @override
    def example_factors(self, examples: Sequence[ExampleInfo], sources: int, step: int | None) -> Float[Tensor, "S E"]:
        """1 for the source that is drawn and 0 for the others; without a step the probabilities."""
        chance = self.probabilities or [1 / sources] * sources
        if step is None:
            return torch.tensor(chance)[:, None].expand(-1, len(examples))
        drawn = torch.tensor([self._draw(chance, step, example) for example in examples], dtype=torch.long)
        return (torch.arange(sources)[:, None] == drawn).float()

    def _draw(self, chance: Sequence[float], step: int, example: ExampleInfo) -> int:
        if step < self.start:
            return 0
        what = f"{self.seed}/{step}/{example.id}" if self.per == "example" else f"{self.seed}/{step}"
        return min(bisect_right(list(accumulate(chance)), random.Random(what).random()), len(chance) - 1)


class Learned(Weighting):
    """Each source counts in each domain by its share of the mixture that makes validation text most likely.

    The mixture is of the pivot before training and all sources; see `stages.mixture_weights`. The pivot's own share goes to
    no source, so a domain in which no source knows more than the pivot is learned from the text alone. Nothing is learned from
    held-out examples. The criterion is ours, in place of a trained weighting that needs a second pass through the model.
    """

    kind: Literal["learned"] = "learned"
    per: Literal["domain", "all"] = "domain"
    """Whether each domain has its shares (each must then be in data.validation), or all have the same."""
    shares: dict[str, list[float]] | None = None
    """Of each domain, one for each source in their order, `*` for domains that are not named; if not said, they are found
    on data.validation before training."""

    @field_validator("shares")
    @classmethod
    def _not_negative(cls, value: dict[str, list[float]] | None) -> dict[str, list[float]] | None:
        if negative := [name for name, shares in (value or {}).items() if min(shares, default=0) < 0]:
            raise ValueError(f"of {negative[0]} must not be negative, got {(value or {})[negative[0]]}")
        if value == {}:
            raise ValueError("names no domain; name some, or leave shares out to have them found on data.validation")
        return value

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"} if self.shares is None else ())

    @property
    @override
    def missing_shares(self) -> Literal["domain", "all"] | None:
        return self.per if self.shares is None else None

    @override
    def with_shares(self, shares: Mapping[str, Sequence[float]]) -> Any:
        return (
            self.model_copy(update={"shares": {name: list(each) for name, each in shares.items()}})
            if self.missing_shares
            else self
        )

    @override
    def example_factors(self, examples: Sequence[ExampleInfo], sources: int, step: int | None) -> Float[Tensor, "S E"]:
        """The shares of each example's domain."""
        assert self.shares is not None, "shares are found before anything is weighed"
        found = [self.shares.get(example.domain, self.shares.get(ALL_DOMAINS)) for example in examples]
        return torch.tensor(found).reshape(len(examples), sources).T


class Eligibility(Weighting):
    """Only sources that answered the prompt rightly count: each by the share of its answers that passed their check.

    The shares are divided by their sum over the sources, so that together the sources count as much as one. In a `product`
    with `gold_posterior` (or another that shares out 1 among the sources) they are its priors.

    Source: teachers that are verified for each prompt, arXiv:2609.02548, where any of them may teach that answered rightly; the
    share of several answers is ours.
    """

    kind: Literal["eligibility"] = "eligibility"
    otherwise: Literal["none", "all"] = "none"
    """Which sources count where none answered rightly: none of them, so that the example is learned from its text alone, or
    all alike."""

    @property
    @override
    def required_eligibility(self) -> bool:
        return True

    @override
    def source_priors(self, examples: Sequence[ExampleInfo], sources: int) -> Float[Tensor, "S E"]:
        """Raises ValueError where it is not known which sources answered rightly."""
        shares = torch.tensor([_eligibility(each) for each in examples], dtype=torch.float64)
        shares = shares.reshape(len(examples), sources).T
        if self.otherwise == "all":
            shares = shares + (shares.sum(0) == 0)
        return shares / shares.sum(0).where(shares.sum(0) > 0, 1)  # 0 for all sources where none counts


def _eligibility(example: ExampleInfo) -> tuple[float, ...]:
    if example.eligibility is None:
        raise ValueError(
            f"weighting: eligibility asks which sources answered the prompt of example {example.id} rightly, and nothing is "
            "known of it. `fusion run` with data.responses best_source or every_source finds it out; elsewhere use another "
            "weighting."
        )
    return example.eligibility
