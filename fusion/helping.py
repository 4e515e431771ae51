"""Is this source helping? What each source knows of each domain, against the pivot, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion.align import Alignment, align
from fusion.rows import LogitRows
from fusion.weighting import AnyWeighting


@dataclass(frozen=True)
class Helping:
    """One source in one domain. Gold figures are log-probabilities of the true text, in nats per byte: never above 0."""

    source: str
    domain: str
    rows: int
    """Rows of the pivot."""
    match_rate: float
    """Share of them that has a row of the source."""
    gold_source: float | None
    """None where some of the source's rows do not know the log-probability of the true token."""
    gold_pivot: float
    weight: float
    """Mean weight over the matched pairs."""


def helping(
    pivot: LogitRows,
    sources: Mapping[str, LogitRows],
    domains: Sequence[str],
    texts: Mapping[int, bytes],
    alignment: Alignment,
    weighting: AnyWeighting,
) -> list[Helping]:
    """One entry for each source and domain; `domains[i]` is the domain of example i."""
    pairs = [align(alignment, pivot, rows, texts) for rows in sources.values()]
    weights = weighting(pivot, list(sources.values()), pairs)
    found = []
    for (name, rows), pair, weight in zip(sources.items(), pairs, weights, strict=True):
        for domain in dict.fromkeys(domains):
            inside = torch.tensor([d == domain for d in domains])
            matched = inside[pivot.example[pair.pivot]]
            total = int(inside[pivot.example].sum())
            mean_weight = weight[matched].mean().item() if matched.any() else 0.0
            gold, own = gold_per_byte(rows, inside), gold_per_byte(pivot, inside)
            said = None if math.isnan(gold) else gold
            found.append(Helping(name, domain, total, matched.sum().item() / max(1, total), said, own, mean_weight))
    return found


def gold_per_byte(rows: LogitRows, inside: Tensor) -> float:
    """Log-probability of the response text in nats per byte, over the examples that are `inside` (bool by example).

    The last row of an example is left out: it predicts the end of turn, or text beyond the cut. NaN where a row's is.
    """
    last = torch.ones(len(rows), dtype=torch.bool)
    last[:-1] = rows.example[1:] != rows.example[:-1]
    chosen = inside[rows.example]
    covered = rows.prefix[last & chosen].sum().item()
    return rows.gold[chosen & ~last].double().sum().item() / max(1, covered)
