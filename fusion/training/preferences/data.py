"""Which examples are the answers of a pair, by number, and what models said of each before training."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from fusion.core.example import Part
from fusion.objectives import PreferenceTargets
from fusion.training.preferences.sums import AnswerSums


@dataclass(frozen=True)
class PreferencePair:
    """A right and a wrong answer to one prompt, by the number of the example."""

    chosen: int
    rejected: int
    source_chosen: int | None = None
    """A right answer of a source, where the other two are the pivot's own."""

    @property
    def answers(self) -> tuple[int, ...]:
        """Numbers of its answers, right ones first."""
        return (*([] if self.source_chosen is None else [self.source_chosen]), self.chosen, self.rejected)


@dataclass(frozen=True)
class PreferenceData:
    """The pairs of a training, and what is known of its examples, which are their answers."""

    pairs: Sequence[PreferencePair]
    num_bytes: Sequence[int]
    """Length of each answer."""
    reference: AnswerSums
    """What the pivot before training says of each."""
    sources: Mapping[str, AnswerSums] = field(default_factory=dict)
    """By name: what a source says of each, where an objective reads it."""

    def answers(self, pairs: Sequence[int]) -> list[int]:
        """Return the numbers of the answers of these pairs, each once."""
        return list(dict.fromkeys(answer for pair in pairs for answer in self.pairs[pair].answers))

    def part(self, number: int) -> Part:
        """Return whether an answer is a right or a wrong one."""
        return "rejected" if number in self._rejected else "chosen"

    @functools.cached_property
    def _rejected(self) -> frozenset[int]:
        return frozenset(pair.rejected for pair in self.pairs)

    def targets(self, pairs: Sequence[int], answers: Sequence[int]) -> PreferenceTargets:
        """Return what objectives see of these pairs in a batch of these answers."""
        place = {answer: at for at, answer in enumerate(answers)}
        chosen = [self.pairs[pair] for pair in pairs]
        of_sources = [place[pair.source_chosen] for pair in chosen if pair.source_chosen is not None]
        return PreferenceTargets(
            chosen=torch.tensor([place[pair.chosen] for pair in chosen], dtype=torch.long),
            rejected=torch.tensor([place[pair.rejected] for pair in chosen], dtype=torch.long),
            reference_logprobs=_picked(self.reference.logprobs, answers),
            num_bytes=torch.tensor([self.num_bytes[answer] for answer in answers]),
            source_chosen=torch.tensor(of_sources) if len(of_sources) == len(chosen) else None,
            source_logprobs={name: _picked(each.logprobs, answers) for name, each in self.sources.items()},
            source_tokens={
                name: torch.tensor([each.tokens[answer] for answer in answers]) for name, each in self.sources.items()
            },
        )


def _picked(values: Sequence[float], numbers: Sequence[int]) -> torch.Tensor:
    return torch.tensor([values[number] for number in numbers], dtype=torch.float32)
