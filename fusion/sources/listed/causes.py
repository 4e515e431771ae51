"""The likely cause of numbers that are no natural-log probabilities: the reading that makes them some."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fusion.sources.listed.bounds import Entries, above_one, too_little_mass

LOGITS = (
    "They look like logits (as they are, or less their mean or their highest), or were normalised over something else than the "
    "whole vocabulary: subtract the logsumexp over all of it (torch.log_softmax, in float32)."
)
TELLING = 0.5  # of the probability in the entries, on average: with less, most bases leave masses below 1
ALMOST_ALL = 0.95  # of the rows: some may be of another making, such as padding


class Reading(NamedTuple):
    """Another meaning that the numbers may have."""

    sentence: str
    logprobs: Callable[[Tensor], Tensor]
    errors: Callable[[Tensor, Tensor], Tensor]
    """Of values and their errors: the errors of the log-probabilities."""


def _scaled(factor: float, sentence: str) -> Reading:
    return Reading(sentence, lambda x: x * factor, lambda _, errors: errors * abs(factor))


BASE_2 = _scaled(math.log(2), "They look like logarithms to base 2: multiply them by 0.693147 (ln 2).")
READINGS = (
    Reading(
        "They look like probabilities: write their natural logarithms.",
        lambda x: x.clamp(min=0).log().masked_fill(x < 0, torch.inf),
        lambda x, errors: errors / x.clamp(min=1e-12),
    ),
    _scaled(-1.0, "They look like -log p: change their sign."),
    _scaled(math.log(10), "They look like logarithms to base 10: multiply them by 2.302585 (ln 10)."),
    BASE_2,
    _scaled(-math.log(2), "They look like -log2 p, in bits: multiply them by -0.693147 (-ln 2)."),
    _scaled(-math.log(10), "They look like -log10 p: multiply them by -2.302585 (-ln 10)."),
)


def likely_cause(entries: Entries, head_size: int | None = None) -> str:
    """Return a sentence that says what rows probably hold that are no log-probabilities, and the way out.

    Of the readings under which nearly all rows could be a model's likeliest tokens, the one that leaves the least mass over:
    with a wrong base or sign the masses are beyond 1, or far from it. Where masses say little, all of them.
    """
    if bool((entries.values.amax(-1) == 0).all()):
        return LOGITS  # less the highest
    fitting = {}
    for reading in READINGS:
        read = read_as(reading, entries)
        if _fits(read, head_size):
            fitting[reading.sentence] = float(read.values.exp().sum(-1).mean())
    if not fitting:
        return LOGITS
    best = max(fitting, key=lambda sentence: fitting[sentence])
    if fitting[best] > TELLING and float(entries.listed.sum(-1).double().mean()) >= 2:
        return best
    return " Or: ".join([*fitting, *([LOGITS] if best == BASE_2.sentence else [])])


def read_as(reading: Reading, entries: Entries) -> Entries:
    """Return the log-probabilities that the numbers are in this reading."""
    empty = entries.values.isneginf()
    values = reading.logprobs(entries.values).masked_fill(empty, -torch.inf)
    return Entries(values, reading.errors(entries.values, entries.errors).masked_fill(empty, 0.0))


def _fits(entries: Entries, head_size: int | None) -> bool:
    wrong = above_one(entries) | entries.values.isnan().any(-1)
    if head_size is not None:
        wrong |= too_little_mass(entries, head_size)
    return float((~wrong).double().mean()) >= ALMOST_ALL and not _ascends(entries.values)


def _ascends(values: Tensor) -> bool:
    """Whether the likeliest entries would stand last, which no program does that sorts them."""
    steps = values.diff(dim=-1)
    steps = steps[steps.isfinite() & (steps != 0)]
    return len(steps) > 0 and float((steps > 0).double().mean()) > 0.75
