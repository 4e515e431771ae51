"""Select the examples whose response has the lowest perplexity under a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fusion.data.example import Example, count_by_domain


def select_easiest(log_perplexity: Sequence[float], examples: Sequence[Example], share: float) -> list[int]:
    """Return the ascending indices of the given share of each domain's examples with the lowest perplexity.

    `log_perplexity` is the mean of -log p over the tokens of each response. Ties are broken by content id.
    """
    remaining = easiest_counts(examples, share)
    selected = []
    for n in sorted(range(len(examples)), key=lambda n: (log_perplexity[n], examples[n].id)):
        if remaining[examples[n].domain]:
            remaining[examples[n].domain] -= 1
            selected.append(n)
    return sorted(selected)


def easiest_counts(examples: Sequence[Example], share: float) -> dict[str, int]:
    """Return how many examples of each domain are selected: its share, rounded up."""
    return {domain: math.ceil(share * count) for domain, count in count_by_domain(examples).items()}
