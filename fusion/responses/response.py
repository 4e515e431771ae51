"""A response of a source to a prompt of the training data."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.responses.fit import PivotFit


@dataclass(frozen=True)
class Response:
    """A response that a source generated, and what is known of it."""

    source: str
    """Name of the source."""
    text: str
    ended: bool
    """Whether it ended by itself, and was not truncated at `max_new_tokens`."""
    other_sources_logprob: float | None = None
    """Mean over the other sources of its log-probability, in nats per byte; None where no check needs it."""
    reference_logprob: float | None = None
    """What its source makes of the data set's own response, in nats per byte; None where no check needs it."""
    pivot_fit: PivotFit | None = None
    """What the pivot makes of it; None where the choice does not ask (`prefer: first`)."""
