"""Floating-point work: a multiplication and an addition are two operations, whatever runs them."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.plan.facts import Architecture


@dataclass(frozen=True)
class Counts:
    """What one model reads of a data set, once. Padding is not counted."""

    examples: int
    tokens: int
    squares: int
    """Sum over examples of tokens squared: attention compares each token with each."""
    rows: int
    """Response positions, for which logits are made."""
    longest: int
    """Tokens of the longest example."""


def forward(model: Architecture, counts: Counts) -> float:
    """One pass with logits on the rows, and on one more position an example, which the model computes by itself."""
    return _layers(model, counts) + _attention(model, counts) + _head(model, counts.rows + counts.examples)


def training(model: Architecture, counts: Counts, checkpointed: bool, again: bool, back: int = 1) -> float:
    """A pass forward and one back, which costs twice that; attention's back is 2.5, since fused kernels make scores anew.

    `checkpointed`: layers are computed once more, up to what their last matrix reads. `again`: logits are, because they did
    not exist all at once. `back`: how often layers are read backwards.
    """
    last = 2.0 * model.layers * model.intermediate * model.hidden * counts.tokens
    once_more = _layers(model, counts) - last + _attention(model, counts) if checkpointed else 0.0
    layers = (1 + 2 * back) * _layers(model, counts) + (1 + 2.5 * back) * _attention(model, counts) + back * once_more
    return layers + (3 + int(again)) * _head(model, counts.rows) + _head(model, counts.examples)


def seconds(work: int | float, gpus: int, peak: int | float, mfu: int | float) -> float:
    """Time of `work` on `gpus` that reach the share `mfu` of their `peak`. Recomputed work counts as work."""
    return work / (gpus * peak * mfu)


def _layers(model: Architecture, counts: Counts) -> float:
    return 2.0 * model.multiplied * counts.tokens


def _attention(model: Architecture, counts: Counts) -> float:
    """Queries with keys, and scores with values, both over the whole square, as dense kernels do."""
    return 4.0 * model.layers * model.queries * counts.squares


def _head(model: Architecture, rows: int) -> float:
    return 2.0 * model.vocabulary * model.hidden * rows
