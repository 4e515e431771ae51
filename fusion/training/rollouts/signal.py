"""How a source's signal on the pivot's texts is centred and scaled, domain by domain.

The signal of a source on a span of text is l_source - l_pivot, in nats. Its mean over the text that the pivot wrote is minus a
KL divergence; left so, it pushes down every token that can be compared, and the pivot drifts to odd splits that no source can
judge. So the mean of the domain is taken off. And domains whose signal is wide would drown the others: each is scaled to the
spread of all, by a factor of 1/4 to 4 (arXiv:2609.35347).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.objectives import BatchTargets, RolloutTargets, SourceTargets
from fusion.objectives.policy.signal import span_signal

WIDEST_FACTOR = 4.0


@dataclass(frozen=True)
class Signal:
    """The signal of a source on the spans of one domain."""

    spans: int
    """Spans of text that both models bound alike."""
    mean: float
    """In nats."""
    std: float
    """Population standard deviation, in nats."""
    comparable: float
    """Share of the pivot's tokens that lie in such a span."""


@dataclass(frozen=True)
class SignalScales:
    """By domain, what is taken off a source's signal and what the rest is multiplied by."""

    domains: Mapping[str, Signal]
    std: float
    """Of all domains together, each about its own mean."""

    def means(self, domains: Sequence[str]) -> Float[Tensor, " E"]:
        """Return the mean of the signal in the domain of each example; 0 where there was no text."""
        return torch.tensor([self.domains[d].mean if d in self.domains else 0.0 for d in domains])

    def factors(self, domains: Sequence[str]) -> Float[Tensor, " E"]:
        """Return the factor for the domain of each example."""
        return torch.tensor([self._factor(domain) for domain in domains])

    def _factor(self, domain: str) -> float:
        own = self.domains[domain].std if domain in self.domains else 0.0
        if not own:  # no signal, or the same everywhere: nothing to be scaled
            return 1.0
        return min(max(self.std / own, 1 / WIDEST_FACTOR), WIDEST_FACTOR)


@dataclass
class _SignalSums:
    values: list[Tensor] = field(default_factory=list)
    tokens: int = 0
    inside: int = 0


def signal_scales(batches: Iterable[BatchTargets]) -> dict[str, SignalScales]:
    """Measure the signal of each source on all texts that the pivot wrote, from batches that hold each text once."""
    found: dict[str, dict[str, _SignalSums]] = defaultdict(lambda: defaultdict(_SignalSums))
    for targets in batches:
        if targets.rollouts is not None:
            for name, source in targets.sources.items():
                _add(found[name], targets, targets.rollouts, name, source)
    return {name: _scales(by_domain) for name, by_domain in found.items()}


def _add(
    sums: dict[str, _SignalSums], targets: BatchTargets, rollouts: RolloutTargets, name: str, source: SourceTargets
) -> None:
    examples, spans = targets.positions.example.long(), source.spans
    weaker = rollouts.weaker_gold.get(name)
    signal = span_signal(
        spans,
        source.rows.gold.double(),
        rollouts.old_logprobs.double(),
        None if weaker is None else weaker.double(),
    )
    span_example = examples[source.pairs.pivot[spans.pair]]
    known = ~rollouts.old_logprobs.isnan()
    for number, info in enumerate(targets.examples):
        rows, its = (examples == number) & known, sums[info.domain]
        its.tokens += int(rows.sum())
        its.inside += int((rows & (spans.pivot_span >= 0)).sum())
        its.values.append(signal[span_example == number])


def _scales(by_domain: Mapping[str, _SignalSums]) -> SignalScales:
    signals: dict[str, Signal] = {}
    centred: list[Tensor] = []
    for domain, sums in by_domain.items():
        values = torch.cat(sums.values)
        if len(values):
            centred.append(values - values.mean())
            std = float(centred[-1].square().mean().sqrt())
            signals[domain] = Signal(len(values), float(values.mean()), std, sums.inside / sums.tokens)
    together = torch.cat(centred) if centred else torch.zeros(1, dtype=torch.float64)
    return SignalScales(signals, float(together.square().mean().sqrt()))
