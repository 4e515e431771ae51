"""Sources judge the pivot's own text, token by token: distillation on what the student writes, across tokenizers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fusion.objectives.base import LoggedMean, Requirements
from fusion.objectives.policy.base import Advantages, PolicyObjective
from fusion.objectives.policy.rollouts import RolloutRows, is_rollout
from fusion.objectives.policy.signal import span_signal
from fusion.objectives.targets import BatchTargets, ObjectiveInputs, SourceTargets


class PolicyGradient(PolicyObjective):
    """Tokens of the pivot's own text become likelier where a source finds them likelier than its weaker relative does.

    For each span u between boundaries that pivot and source share, D(u) = log p(u) - log r(u), r the source's weaker relative;
    without one, D(u) = log p(u) - log pi(u) with the pivot as it is at this step, a constant. The advantage of the source
    is clip((D - mean) * factor, -clip, clip), mean and factor those of its domain in the round; every token of the pivot in
    the span has the whole of it. The loss of a token is -rho A log pi(y_t), see `PolicyObjective`, A the sum over sources of
    the weight of the span's first pair times (advantage - beta (log pi - log pi_0)). Its mean is over the tokens that lie in
    a span of any source.

    With D(u) = log p(u) - log pi(u) on one tokenizer, rho = 1 and nothing centred, scaled or clipped, the expected gradient is
    that of the sum over tokens of KL(pi(.|c) ‖ p(.|c)), the prefixes c held fixed. It reads the log-probability of the given
    text alone, so that any server can be a source.

    Source: on one tokenizer Lightning OPD, arXiv:2604.13010; over spans, and with a weaker relative, CompassOPD,
    arXiv:2609.10154, whose coefficient of the anchor is 0.5; the factor of a domain from arXiv:2609.35347.
    """

    kind: Literal["policy_gradient"] = "policy_gradient"
    clip: float = Field(default=5.0, gt=0)
    """Largest advantage that a source may give to a span, of either sign."""

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, sources=True, aligned_spans=True)

    @override
    def counts(self, targets: BatchTargets) -> dict[str, int]:
        rollout = targets.is_row_of(is_rollout)
        by_source = {name: rollout & (source.spans.pivot_span >= 0) for name, source in targets.sources.items()}
        # one denominator for all: a source that reads few of the texts is not louder in them
        any_source = torch.stack([torch.zeros_like(rollout), *by_source.values()]).any(0)
        return {
            **super().counts(targets),
            **{f"{self.kind}/{name}": int(any_source.sum()) for name in by_source},
            **{_own_count(self.kind, name): int(rows.sum()) for name, rows in by_source.items()},
        }

    @override
    def advantages(self, inputs: ObjectiveInputs, rollouts: RolloutRows) -> dict[str, Advantages]:
        return {
            f"{self.kind}/{name}": self._of_source(inputs, rollouts, name, source)
            for name, source in inputs.targets.sources.items()
        }

    @torch.no_grad()
    def _of_source(
        self, inputs: ObjectiveInputs, rollouts: RolloutRows, name: str, source: SourceTargets
    ) -> Advantages:
        """Advantages of one source at the M rows; weight 0 outside its spans."""
        span = source.spans.pivot_span[rollouts.index]
        inside, dtype = span >= 0, rollouts.old_logprobs.dtype
        signal = self._signal(inputs, name, source, dtype)
        _refuse_unknown(signal, span[inside], inputs.targets, name, source)
        of_span = self._scaled(signal, inputs.targets, name, source)
        values, weight = torch.zeros_like(rollouts.old_logprobs), torch.zeros_like(rollouts.old_logprobs)
        values[inside] = of_span[span[inside]]
        weight[inside] = source.weight[source.spans.pair].to(dtype)[span[inside]]
        return Advantages(values, weight, self._logged(name, signal, span, inside))

    def _signal(
        self, inputs: ObjectiveInputs, name: str, source: SourceTargets, dtype: torch.dtype
    ) -> Float[Tensor, " C"]:
        known = inputs.targets.rollouts
        weaker = None if known is None else known.weaker_gold.get(name)
        weaker = None if weaker is None else weaker.to(dtype)
        return span_signal(source.spans, source.rows.gold.to(dtype), inputs.pivot.gold.to(dtype), weaker)

    def _scaled(
        self, signal: Float[Tensor, " C"], targets: BatchTargets, name: str, source: SourceTargets
    ) -> Float[Tensor, " C"]:
        """Centre, scale and clip the signal of each span by what is known of its example's domain."""
        example = targets.positions.example[source.pairs.pivot[source.spans.pair]]
        if targets.rollouts is not None and name in targets.rollouts.signal_means:
            signal = signal - targets.rollouts.signal_means[name].to(signal)[example]
        if targets.rollouts is not None and name in targets.rollouts.signal_factors:
            signal = signal * targets.rollouts.signal_factors[name].to(signal)[example]
        return signal.clamp(-self.clip, self.clip)

    def _logged(
        self, name: str, signal: Float[Tensor, " C"], span: Tensor, inside: Bool[Tensor, " M"]
    ) -> Mapping[str, LoggedMean]:
        """The share of tokens that lie in a span, and the mean of D over these tokens, before it is centred."""
        own = _own_count(self.kind, name)
        tokens = torch.bincount(span[inside], minlength=len(signal)).to(signal)
        a_token = (signal / tokens.clamp(min=1)).masked_fill(tokens == 0, 0)
        return {
            f"{self.kind}/comparable/{name}": LoggedMean(inside.sum().to(signal), self.kind),
            f"{self.kind}/signal/{name}": LoggedMean((a_token * tokens).sum(), own),
        }


def _own_count(kind: str, source: str) -> str:
    """Name of the count of tokens that one source can be compared at."""
    return f"{kind}/comparable/{source}"


def _refuse_unknown(
    signal: Float[Tensor, " C"], spans: Tensor, targets: BatchTargets, name: str, source: SourceTargets
) -> None:
    """Raise ValueError where a source or its relative does not know a span of the pivot's text."""
    if len(unknown := spans[signal[spans].isnan()]):
        row = source.pairs.pivot[source.spans.pair[unknown[0]]]
        example = targets.examples[int(targets.positions.example[row])].id
        raise ValueError(
            f"policy_gradient: source {name}, or its weaker relative, gives no log-probability (NaN) to {len(unknown)} of "
            f"{len(spans)} tokens of the pivot's texts in this batch, the first in example {example}. Read the round's texts "
            "again with a backend that knows the log-probability of a given token."
        )
