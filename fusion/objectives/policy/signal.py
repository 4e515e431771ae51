"""What a source says of spans of the pivot's own text: how much more of this, how much less."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from fusion.core.spans import AlignedSpans


def span_signal(
    spans: AlignedSpans,
    source: Float[Tensor, " R"],
    pivot: Float[Tensor, " N"],
    weaker: Float[Tensor, " R"] | None = None,
) -> Float[Tensor, " C"]:
    """Compute D of each span in nats: log-probability under the source, less that under its weaker relative or the pivot.

    `source` and `weaker` are log-probabilities of the tokens of the source's R rows, `pivot` of those of the pivot's N rows.
    Without a relative D is log p - log pi, whose mean over texts of the pivot is -KL(pi ‖ p): the signal of distillation on
    the student's own text. With one, what both models of a family have in common, its style, cancels out.

    Source: Lightning OPD, arXiv:2604.13010 (the first), and CompassOPD, arXiv:2609.10154 (the second).
    """
    own = spans.sum_rows(source, spans.source_span)
    other = spans.sum_rows(pivot, spans.pivot_span) if weaker is None else spans.sum_rows(weaker, spans.source_span)
    return own - other
