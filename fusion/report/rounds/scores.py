"""Scores of rounds with their intervals, and in words which round was kept and why."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fusion.runtime.run_file import RoundScore, RoundsFacts
from fusion_eval.results import MEAN
from fusion_eval.statistics.intervals import Interval, add_arms, wilson

FIRST = "first training"
"""What round 0 is called."""
INTERVALS = (
    "In brackets 95% intervals (Wilson) over prompts: answers to one prompt are much alike, so they count as one there, and "
    "the intervals are rather too wide than too narrow."
)


@dataclass(frozen=True)
class RoundRow:
    """How answers to validation prompts of one domain did after one round; the shares from 0 to 1."""

    name: str
    """Of the round."""
    domain: str
    """Or `mean`, of all domains alike."""
    kept: bool
    """Whether this round is the result."""
    pass_at_1: Interval
    pass_at_n: Interval
    ended: Interval
    tokens: float
    """Mean length, in tokens of the pivot."""


def round_name(number: int) -> str:
    """What a round is called in tables and figures."""
    return f"round {number}" if number else FIRST


def round_rows(facts: RoundsFacts) -> list[RoundRow]:
    """Return a row for each domain and round, round by round within a domain; first the mean, where domains are several."""
    rows: list[RoundRow] = []
    domains = list(dict.fromkeys(score.domain for scores in facts.scores for score in scores))
    for domain in [*([MEAN] if len(domains) > 1 else []), *domains]:
        for number, scores in enumerate(facts.scores):
            of_domain = [score for score in scores if domain in (MEAN, score.domain)]
            if of_domain:
                rows.append(_row(number, domain, number == facts.kept, of_domain))
    return rows


def _row(number: int, domain: str, kept: bool, scores: Sequence[RoundScore]) -> RoundRow:
    def mean(name: str) -> Interval:
        shares = [float(getattr(score, name)) for score in scores]
        below, above = add_arms([wilson(share, score.prompts) for share, score in zip(shares, scores, strict=True)])
        middle, count = statistics.fmean(shares), len(scores)
        low, high = middle - below / count, middle + above / count
        return Interval(middle, low, high, sum(score.prompts for score in scores))

    tokens = statistics.fmean(score.tokens for score in scores)
    return RoundRow(round_name(number), domain, kept, mean("pass_at_1"), mean("pass_at_n"), mean("ended"), tokens)


def share(interval: Interval) -> tuple[str, str]:
    """Return a share as a percentage, and both ends of its interval in brackets."""
    return f"{100 * interval.value:.1f}%", f"({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def kept_sentence(facts: RoundsFacts) -> str:
    """Say which round was kept, and why."""
    if facts.keep == "last":
        return f"The last round, {facts.count}, was kept, as rounds.keep asks."
    if not facts.is_validated:
        return (
            f"The last round, {facts.count}, was kept: there are no validation examples (data.validation) by which rounds "
            "could be compared."
        )
    if facts.kept == 0:
        return (
            "The first training was kept: after no round did answers to the validation prompts pass more often, each domain "
            "counting alike."
        )
    return (
        f"Round {facts.kept} of {facts.count} was kept: its answers to the validation prompts pass most often, each domain "
        "counting alike."
    )


def generations(facts: RoundsFacts) -> int:
    """Return how many answers each validation prompt was given; 0 where there were none."""
    return next((score.generations for scores in facts.scores for score in scores), 0)
