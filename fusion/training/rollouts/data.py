"""What is known of the texts that the pivot wrote, by the number of the example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.alignment import gold_of_stop
from fusion.cache import Cache
from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, Positions
from fusion.objectives import RolloutTargets
from fusion.training.rollouts.signal import SignalScales


class WeakerRelative(NamedTuple):
    """The rows of a source's weaker relative, and the ids with which it says that an answer is over."""

    cache: Cache
    stop_ids: Sequence[int]


@dataclass(frozen=True)
class RolloutData:
    """The texts that the pivot wrote among the examples of a training: the first `len(passed)`; the others are replayed."""

    ids: Sequence[str]
    """Content ids of all examples."""
    passed: Sequence[bool]
    """Whether each text passed the check of its data set."""
    advantages: Sequence[float]
    """How much better the reward of each is than that of the others for its prompt."""
    written_by: Cache
    """What the pivot that wrote them says of each, one row a token."""
    reference: Cache | None = None
    """What the pivot before the first round says of each, where an objective reads it."""
    weaker: Mapping[str, WeakerRelative] = field(default_factory=dict)
    """By source: what its weaker relative says of each, row for row beside the source's own."""
    scales: Mapping[str, SignalScales] = field(default_factory=dict)
    """By source: how its signal is centred and scaled."""

    def is_written(self, number: int) -> bool:
        """Return whether the pivot wrote this example."""
        return number < len(self.passed)

    def rows(self, cache: Cache, numbers: Sequence[int], hidden: bool = False) -> LogitRows:
        """Return the cached rows of those examples of a batch that the pivot wrote, numbered by their place in the batch.

        A source has none of texts that it may not teach.
        """
        places = [place for place, n in enumerate(numbers) if self.is_written(n) and self.ids[n] in cache]
        if not places:
            return cache.rows(cache.ids[:1], hidden).select(slice(0, 0))
        rows = cache.rows([self.ids[numbers[place]] for place in places], hidden)
        return dataclasses.replace(rows, example=torch.tensor(places)[rows.example.long()])

    def info(self, number: int, domain: str) -> ExampleInfo:
        """Return what is known of an example besides its rows."""
        written = self.is_written(number)
        part = "rollouts" if written else "replay"
        return ExampleInfo(domain, self.ids[number], part, passed=not written or self.passed[number])

    def targets(self, positions: Positions, numbers: Sequence[int], domains: Sequence[str]) -> RolloutTargets:
        """Return what objectives see of the texts in a batch that the pivot wrote."""
        advantages = [self.advantages[number] if self.is_written(number) else 0.0 for number in numbers]
        return RolloutTargets(
            old_logprobs=self.gold(self.written_by, positions, numbers),
            advantages=torch.tensor(advantages),
            reference_logprobs=None if self.reference is None else self.gold(self.reference, positions, numbers),
            weaker_gold={
                name: gold_of_stop(self.rows(each.cache, numbers), each.stop_ids).gold
                for name, each in self.weaker.items()
            },
            signal_means={name: each.means(domains) for name, each in self.scales.items()},
            signal_factors={name: each.factors(domains) for name, each in self.scales.items()},
        )

    def gold(self, cache: Cache, positions: Positions, numbers: Sequence[int]) -> Float[Tensor, " N"]:
        """Return what a model of the pivot's tokenizer gives to each row's token, in nats; NaN in replayed examples."""
        found = torch.full((len(positions),), torch.nan)
        written = torch.tensor([self.is_written(number) for number in numbers])[positions.example.long()]
        found[written] = self.rows(cache, numbers).gold
        return found
