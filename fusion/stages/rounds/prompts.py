"""Which training prompts the pivot answers in a round."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate

from fusion.data.example import Example


def draw_prompts(examples: Sequence[Example], count: int, number: int, seed: int) -> list[int]:
    """Return the numbers of the examples whose prompts are answered in round `number`, counted from 1; in ascending order.

    Of each domain as many as its share of all prompts; every prompt comes before one comes again, in an order drawn by `seed`.
    """
    first = list({example.prompt_id: at for at, example in reversed(list(enumerate(examples)))}.values())[::-1]
    by_domain: dict[str, list[int]] = {}
    for at in first:
        by_domain.setdefault(examples[at].domain, []).append(at)
    wanted = _shares([len(prompts) for prompts in by_domain.values()], min(count, len(first)))
    drawn: list[int] = []
    for (domain, prompts), size in zip(by_domain.items(), wanted, strict=True):
        random.Random(f"{seed} {domain}").shuffle(prompts)
        begin = (number - 1) * size
        drawn += [prompts[at % len(prompts)] for at in range(begin, begin + size)]
    return sorted(drawn)


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """Divide `count` in proportion to `sizes`, in whole numbers that add up to it; each between 0 and its size."""
    total = sum(sizes)
    ends = [round(count * end / total) for end in accumulate(sizes)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
