"""Which training prompts the pivot answers in a round: so many of each domain, by its size or by what is left to gain there."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

from fusion.data.example import Example


def draw_prompts(examples: Sequence[Example], counts: Sequence[Mapping[str, int]], seed: int) -> list[int]:
    """Return the numbers of the examples whose prompts are answered in a round; in ascending order.

    `counts` are the prompts by domain of each round from the first to this one. In a domain every prompt comes before one
    comes again, in an order drawn by `seed`.
    """
    by_domain: dict[str, list[int]] = {}
    for at in _first_of_each_prompt(examples):
        by_domain.setdefault(examples[at].domain, []).append(at)
    drawn: list[int] = []
    for domain, prompts in by_domain.items():
        random.Random(f"{seed} {domain}").shuffle(prompts)
        *before, size = (each[domain] for each in counts)
        begin = sum(before)
        drawn += [prompts[at % len(prompts)] for at in range(begin, begin + size)]
    return sorted(drawn)


def count_prompts(examples: Sequence[Example]) -> dict[str, int]:
    """Return how many prompts each domain has, in the order of the examples; one that comes twice counts once."""
    return dict(Counter(examples[at].domain for at in _first_of_each_prompt(examples)))


def proportional_counts(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Divide `count` prompts among domains in proportion to their sizes: whole numbers, none above its size."""
    total = sum(sizes.values())
    ends = [round(min(count, total) * end / total) for end in accumulate(sizes.values())]
    return {name: end - begin for name, begin, end in zip(sizes, [0, *ends], ends, strict=False)}


def gap_counts(sizes: Mapping[str, int], count: int, gaps: Mapping[str, float], floor: float) -> dict[str, int]:
    """Divide `count` prompts among domains in proportion to their gaps: whole numbers, none above its size.

    `gaps` are shares of answers, from -1 to 1; one below 0 counts as 0. Each domain gets at least the share `floor` of what it
    would get in proportion to its size, rounded up or down. Where a domain has no more prompts the others get the rest.
    """
    total = sum(sizes.values())
    count = min(count, total)
    found = {name: floor * count * size / total for name, size in sizes.items()}
    while (left := count - sum(found.values())) > 1e-9 * count:
        room = {name: size - found[name] for name, size in sizes.items() if size - found[name] > 1e-9}
        weights = {name: gaps[name] for name in room if gaps[name] > 0} or room
        step = min(left / sum(weights.values()), *(room[name] / weight for name, weight in weights.items()))
        found |= {name: found[name] + step * weight for name, weight in weights.items()}
    return _rounded(found, count)


def _rounded(shares: Mapping[str, float], count: int) -> dict[str, int]:
    """Round down and give what is left over to the largest remainders, of equal ones to the first."""
    whole = {name: int(share + 1e-6) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: whole[name] - shares[name])
    for name in by_remainder[: count - sum(whole.values())]:
        whole[name] += 1
    return whole


def _first_of_each_prompt(examples: Sequence[Example]) -> list[int]:
    return list({example.prompt_id: at for at, example in reversed(list(enumerate(examples)))}.values())[::-1]
