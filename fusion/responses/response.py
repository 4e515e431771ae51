"""One answer that a source wrote to a prompt of the training data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Response:
    """What it says, and what is known of it."""

    source: str
    text: str
    ended: bool
    """Whether it came to its end by itself, not for want of room."""
    others: float | None = None
    """Its log-probability under the other sources, their mean, in nats per byte; None where it was not asked for."""
