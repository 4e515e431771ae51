"""One pair of each domain, and what the terms of the loss said of the pairs at the end of the training."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fusion.report.run_contents import Log
from fusion.report.samples import shortened
from fusion.runtime.run_file import PairCounts

PARTS = ("chosen", "rejected", "margins", "accuracies")
"""What a term of preferences logs, in TRL's names."""


@dataclass(frozen=True)
class SamplePair:
    """The first pair of a domain."""

    domain: str
    prompt: str
    answers: list[tuple[str, bool, str]]
    """Who wrote it, whether it is the right one, and the answer."""


@dataclass(frozen=True)
class LearnedTerm:
    """Means over pairs in the last tenth of the steps: the rewards of both answers, their margin, and the share ahead."""

    name: str
    chosen: float
    rejected: float
    margins: float
    accuracies: float


def sample_pairs(counts: Sequence[PairCounts]) -> list[SamplePair]:
    """Return what to show of each domain that has a pair; long texts are shortened."""
    return [
        SamplePair(
            each.domain,
            shortened(each.prompt),
            [(each.chosen_by, True, shortened(each.chosen)), (each.rejected_by, False, shortened(each.rejected))],
        )
        for each in counts
        if each.chosen_by
    ]


def learned_terms(log: Log) -> list[LearnedTerm]:
    """Return each term's numbers at the end of the training; none where the log has no term of preferences."""
    steps = [entry for entry in log if "loss" in entry]
    last = steps[-max(1, len(steps) // 10) :]
    known = {key: None for entry in last for key, value in entry.items() if value is not None}
    names = [key.removesuffix("/margins") for key in known if key.endswith("/margins")]
    return [LearnedTerm(name, *(_mean(last, f"{name}/{part}") for part in PARTS)) for name in names]


def _mean(entries: Log, key: str) -> float:
    return statistics.fmean(value for entry in entries if (value := entry.get(key)) is not None)
