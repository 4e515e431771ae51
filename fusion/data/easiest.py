"""The examples that a model finds easiest: those whose response has the lowest perplexity under it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fusion.data.datasets import Example, count_by_domain


def select_easiest(cost: Sequence[float], examples: Sequence[Example], share: float) -> list[int]:
    """Numbers, in order, of this share of each domain's examples: those that cost least; equal ones go by their content.

    `cost` is the log of a response's perplexity: the mean of -log p over its tokens.
    """
    left = easiest_counts(examples, share)
    chosen = []
    for n in sorted(range(len(examples)), key=lambda n: (cost[n], examples[n].id)):
        if left[examples[n].domain]:
            left[examples[n].domain] -= 1
            chosen.append(n)
    return sorted(chosen)


def easiest_counts(examples: Sequence[Example], share: float) -> dict[str, int]:
    """How many are chosen of each domain: its share, rounded up."""
    return {domain: math.ceil(share * count) for domain, count in count_by_domain(examples).items()}
