"""Answers of each round to one validation prompt of each domain, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.report.rounds.scores import round_name
from fusion.report.samples import shortened
from fusion.runtime.run_file import RoundScore, RoundsFacts


@dataclass(frozen=True)
class RoundSamples:
    """The first validation prompt of a domain, and the first answer to it after each round."""

    domain: str
    prompt: str
    answers: list[tuple[str, bool, bool | None, str]]
    """Name of the round, whether it was kept, whether the answer passes, and the answer."""


def round_samples(facts: RoundsFacts) -> list[RoundSamples]:
    """Return what to show of each domain; long texts are shortened."""
    by_domain: dict[str, list[tuple[int, RoundScore]]] = {}
    for number, scores in enumerate(facts.scores):
        for score in scores:
            by_domain.setdefault(score.domain, []).append((number, score))
    return [
        RoundSamples(
            domain,
            shortened(found[0][1].prompt),
            [
                (round_name(number), number == facts.kept, score.sample_passed, shortened(score.sample))
                for number, score in found
            ],
        )
        for domain, found in by_domain.items()
    ]
