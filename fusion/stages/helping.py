"""Is this source helping? What each source knows of each domain, against the pivot, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fusion.alignment import Alignment, align
from fusion.cache import Cache
from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, Pairs
from fusion.data.example import Example
from fusion.runtime.run_file import Helping
from fusion.weighting import AnyWeighting, scale_by_example


class Batch(NamedTuple):
    """Some examples: rows of all models on them (by number in `example`), and the domain and text of each number."""

    pivot: LogitRows
    sources: Mapping[str, LogitRows]
    domains: Sequence[str]
    texts: Mapping[int, bytes]
    eligibility: Sequence[tuple[float, ...] | None] | None = None
    """Of each number, the shares of the sources' answers to its prompt that passed; None where no weighting asks for it."""


def batches(
    caches: Mapping[str, Cache],
    examples: Sequence[Example],
    size: int,
    eligibility: Mapping[str, tuple[float, ...]] | None = None,
) -> Iterator[Batch]:
    """Rows of all models on these examples as cached, `size` examples at a time. One of the models is called pivot.

    `eligibility` has the shares by prompt id.
    """
    for start in range(0, len(examples), size):
        some = examples[start : start + size]
        rows = {name: cache.rows([example.id for example in some]) for name, cache in caches.items()}
        texts = {i: example.response.encode() for i, example in enumerate(some)}
        passed = [eligibility.get(example.prompt_id) for example in some] if eligibility else None
        yield Batch(rows.pop("pivot"), rows, [example.domain for example in some], texts, passed)


@dataclass
class _Sums:
    """What adds up over batches: of gold, log-probabilities in nats and the bytes they are of."""

    rows: float = 0
    matched: float = 0
    weight: float = 0
    source: tuple[float, float] = (0.0, 0.0)
    pivot: tuple[float, float] = (0.0, 0.0)


def helping(batches: Iterable[Batch], alignment: Alignment, weighting: AnyWeighting) -> list[Helping]:
    """One entry for each source and domain, sources in their order and domains in order of appearance."""
    sums: dict[tuple[str, str], _Sums] = {}
    for batch in batches:
        pairs = [align(alignment, batch.pivot, rows, batch.texts) for rows in batch.sources.values()]
        weights = _weights(weighting, batch, pairs)
        for domain in dict.fromkeys(batch.domains):
            inside = torch.tensor([d == domain for d in batch.domains])
            for (name, rows), pair, weight in zip(batch.sources.items(), pairs, weights, strict=True):
                matched = inside[batch.pivot.example[pair.pivot]]
                total = sums.setdefault((name, domain), _Sums())
                total.rows += inside[batch.pivot.example].sum().item()
                total.matched += matched.sum().item()
                total.weight += weight[matched].double().sum().item()
                total.source = _add(total.source, _gold(rows, inside))
                total.pivot = _add(total.pivot, _gold(batch.pivot, inside))
    names = list(dict.fromkeys(name for name, _ in sums))
    return [_entry(*key, sums[key]) for key in sorted(sums, key=lambda key: names.index(key[0]))]


def _weights(weighting: AnyWeighting, batch: Batch, pairs: Sequence[Pairs]) -> list[Tensor]:
    """How much each pair of each source counts, in the mean over all steps of training."""
    passed = batch.eligibility or [None] * len(batch.domains)
    infos = [ExampleInfo(domain, eligibility=each) for domain, each in zip(batch.domains, passed, strict=True)]
    weights = weighting.weigh(batch.pivot, list(batch.sources.values()), pairs, infos)
    factors = weighting.example_factors(infos, len(pairs), None)
    if factors is None:
        return weights
    parts = zip(weights, factors, pairs, strict=True)
    return [scale_by_example(weight, factor, batch.pivot, pair) for weight, factor, pair in parts]


def _entry(source: str, domain: str, sums: _Sums) -> Helping:
    gold_source, gold_pivot = (nats / max(1, count) for nats, count in (sums.source, sums.pivot))
    match_rate, weight = sums.matched / max(1, sums.rows), sums.weight / max(1, sums.matched)
    said = None if math.isnan(gold_source) else gold_source
    return Helping(source, domain, int(sums.rows), match_rate, said, gold_pivot, weight)


def _gold(rows: LogitRows, inside: Tensor) -> tuple[float, float]:
    """Log-probability of the response texts and their bytes, over the examples that are `inside` (bool by example).

    The last row of an example is left out: it predicts the end of turn, or text beyond the cut. NaN where a row's is.
    """
    chosen = inside[rows.example]
    return rows.gold[chosen & ~rows.is_last].double().sum().item(), float(rows.prefix[rows.is_last & chosen].sum())


def _add(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return one[0] + other[0], one[1] + other[1]
