"""Choices that do not go together, each refused with its reason when the configuration is read.

A rule looks at everything that was chosen and gives one sentence for each offence; `RULES` is the table. What a single type
can tell of itself is checked there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fusion.config.conflicts.choices import Choices
from fusion.config.conflicts.objectives import OBJECTIVE_RULES, WHOLE
from fusion.config.conflicts.transforms import TRANSFORM_RULES
from fusion.config.conflicts.weighting import WEIGHTING_RULES, factors

__all__ = ["RULES", "WHOLE", "Choices", "conflicts", "factors"]

RULES: tuple[Callable[[Choices], Iterator[str]], ...] = (*TRANSFORM_RULES, *OBJECTIVE_RULES, *WEIGHTING_RULES)


def conflicts(chosen: Choices) -> list[str]:
    """One sentence for each pair of choices that do not go together."""
    return [sentence for rule in RULES for sentence in rule(chosen)]
