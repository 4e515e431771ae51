"""How sources are combined: all in one training, or one training each and a merge."""

from __future__ import annotations

from collections.abc import Sequence

BASELINE = "fine-tuned"
"""The pivot trained on the text alone."""
MERGED = "pairwise/merged"
"""What the pairwise trainings become."""


def trainings_of(strategies: Sequence[str], baseline: bool, sources: Sequence[str]) -> dict[str, list[str]]:
    """The trainings that the strategies ask for, and the names of the sources each learns from.

    `unified` is one training on all sources at once, whose losses add up (InfiFusion_u); `pairwise` is one training for
    each source, from the same pivot, whose models are merged afterwards (InfiFusion_p).
    """
    found: dict[str, list[str]] = {BASELINE: []} if baseline else {}
    if "unified" in strategies:
        found["unified"] = list(sources)
    if "pairwise" in strategies:
        found |= {pairwise_name(source): [source] for source in sources}
    return found


def fine_tuning_name(source: str, part: int | None = None) -> str:
    """Name of the training of this source itself, before it teaches; where there are several, that without one part."""
    return f"sources/{source}" if part is None else f"sources/{source}/without-{part}"


def pairwise_name(source: str) -> str:
    """Name of the training on this source alone."""
    return f"pairwise/{source}"
