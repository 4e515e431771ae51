"""What a batch is compared with, as the collator makes it, and what an objective gets to see of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, MappedRows, Pairs, Positions
from fusion.core.spans import AlignedSpans


@dataclass(frozen=True)
class SourceTargets:
    """One source's share of a batch."""

    rows: LogitRows
    """All its rows, ids in its own vocabulary, after its transforms."""
    pairs: Pairs
    """M pairs of a pivot's row and a source's row that predict the same text."""
    weight: Float[Tensor, " M"]
    """How much each pair counts."""
    mapped_pair_index: Int[Tensor, " C"]
    """Numbers of the pairs that can be compared token by token; see `alignment.map_to_pivot`."""
    mapped: MappedRows
    """The C rows of these pairs, ids in the pivot's vocabulary."""
    spans: AlignedSpans
    """The text between boundaries that both models share."""
    other_answer: LogitRows
    """Its rows of another answer to the prompts of the batch, numbered as these; none where nobody reads them."""

    @property
    def pivot_index(self) -> Int[Tensor, " C"]:
        """The pivot's row of each mapped row."""
        return self.pairs.pivot[self.mapped_pair_index]

    def scatter_to_pivot(self, values: Tensor, positions: Positions, empty: int | float) -> Tensor:
        """Put what belongs to the C mapped rows at the N rows of the pivot, and `empty` at the others."""
        scattered = values.new_full((len(positions), *values.shape[1:]), empty)
        return scattered.index_copy(0, self.pivot_index, values)

    def rows_at_pivot(self, positions: Positions) -> MappedRows:
        """The mapped rows at all N rows of the pivot: empty rows where there is none, moments unknown."""
        mapped = self.mapped
        counts, unknown = mapped.sample_counts, self.scatter_to_pivot(mapped.pivot_token_logprob, positions, torch.nan)
        return MappedRows(
            logprobs=self.scatter_to_pivot(mapped.logprobs, positions, -torch.inf),
            ids=self.scatter_to_pivot(mapped.ids, positions, -1),
            sample_counts=None if counts is None else self.scatter_to_pivot(counts, positions, 0),
            pivot_token_logprob=unknown,
            mean=torch.full_like(unknown, torch.nan),
            std=torch.full_like(unknown, torch.nan),
            prefix=positions.prefix,
            example=positions.example,
            token=positions.token,
        )

    def weight_at_pivot(self, positions: Positions) -> Float[Tensor, " N"]:
        """How much the mapped row at each row of the pivot counts, 0 where there is none."""
        return self.scatter_to_pivot(self.weight[self.mapped_pair_index], positions, 0)

    def to(self, device: Any) -> SourceTargets:
        """Return the same on another device."""
        return SourceTargets(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class RolloutTargets:
    """What is known of texts that the pivot wrote itself, in a batch that may hold other texts too."""

    old_logprobs: Float[Tensor, " N"]
    """Log-probability of each row's token under the pivot that wrote the text, in nats; NaN in other texts."""
    advantages: Float[Tensor, " E"]
    """Of each text, how much better its reward is than that of the other texts for its prompt; 0 in other texts."""
    reference_logprobs: Float[Tensor, " N"] | None = None
    """The same as `old_logprobs` under the pivot before the first round, where an objective reads it."""
    weaker_gold: Mapping[str, Float[Tensor, " R"]] = field(default_factory=dict)
    """By source: `gold` of its weaker relative at each of the source's rows, where it has one."""
    signal_means: Mapping[str, Float[Tensor, " E"]] = field(default_factory=dict)
    """By source: the mean of its signal over all comparable spans of the round in the example's domain, in nats."""
    signal_factors: Mapping[str, Float[Tensor, " E"]] = field(default_factory=dict)
    """By source: what its centred signal is multiplied by, so that no domain is louder than another."""

    def to(self, device: Any) -> RolloutTargets:
        """Return the same on another device."""
        return RolloutTargets(*(_moved(getattr(self, f.name), device) for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class PreferenceTargets:
    """Which examples of a batch are right and wrong answers to one prompt, and what models say of each as a whole.

    P pairs of the E examples. Log-probabilities are those of an answer and its end, in nats, summed over the tokens of the
    model that says so: numbers that can be compared whatever the tokens are.
    """

    chosen: Int[Tensor, " P"]
    """Number of the right answer of each pair among the examples of the batch."""
    rejected: Int[Tensor, " P"]
    """Number of the wrong one."""
    reference_logprobs: Float[Tensor, " E"]
    """Of each answer under the pivot before it learned from preferences."""
    num_bytes: Int[Tensor, " E"]
    """Length of each answer in bytes."""
    source_chosen: Int[Tensor, " P"] | None = None
    """Number of a right answer of a source to the same prompt, where the answers of the pairs are the pivot's own."""
    source_logprobs: Mapping[str, Float[Tensor, " E"]] = field(default_factory=dict)
    """By source, of each answer, where an objective reads it."""
    source_tokens: Mapping[str, Int[Tensor, " E"]] = field(default_factory=dict)
    """By source, how many of its tokens each answer and its end take."""

    def to(self, device: Any) -> PreferenceTargets:
        """Return the same on another device."""
        return PreferenceTargets(*(_moved(getattr(self, f.name), device) for f in dataclasses.fields(self)))


def _moved(value: Any, device: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: each.to(device) for name, each in value.items()}
    return None if value is None else value.to(device)


@dataclass(frozen=True)
class BatchTargets:
    """Where the pivot's rows of a batch lie, and each source's rows that they are compared with."""

    hidden_index: Int[Tensor, " N"]
    """The hidden state that predicts each row of the pivot: its index among the flattened [lines * T] states of the batch."""
    positions: Positions
    """Where each of these rows stands in the text."""
    sources: Mapping[str, SourceTargets]
    examples: Sequence[ExampleInfo]
    rollouts: RolloutTargets | None = None
    """In rounds, what is known of the texts that the pivot wrote."""
    preferences: PreferenceTargets | None = None
    """Where right and wrong answers are compared, which these are."""
    shape: tuple[int, int] | None = None
    """Lines of the batch, and tokens of each with padding; None where nobody asks."""

    def to(self, device: Any, **_: Any) -> BatchTargets:
        """Return the same on another device."""
        sources = {name: source.to(device) for name, source in self.sources.items()}
        return BatchTargets(
            self.hidden_index.to(device),
            self.positions.to(device),
            sources,
            self.examples,
            _moved(self.rollouts, device),
            _moved(self.preferences, device),
            self.shape,
        )

    def counts(self) -> dict[str, int]:
        """How many rows, rows that sources have read and, by source, pairs there are: what logged rates are divided by."""
        rows = len(self.positions)
        read = rows if self.rollouts is None else int((~self.rollouts.old_logprobs.isnan()).sum())
        return {"rows": rows, "read_rows": read} | {f"pairs/{name}": len(s.pairs) for name, s in self.sources.items()}

    def is_row_of(self, kind: Callable[[ExampleInfo], bool]) -> Bool[Tensor, " N"]:
        """Whether each row of the pivot belongs to an example of that kind."""
        chosen = [kind(info) for info in self.examples]
        return torch.tensor(chosen, dtype=torch.bool, device=self.positions.example.device)[self.positions.example]

    @property
    def query_ids(self) -> Int[Tensor, "N G"]:
        """Ids of the pivot's vocabulary that sources name at each row, one source's after another's; -1 where none does."""
        none = torch.full((len(self.positions), 0), -1, device=self.hidden_index.device)
        ids = [source.scatter_to_pivot(source.mapped.ids, self.positions, -1) for source in self.sources.values()]
        return torch.cat([none, *ids], dim=1)

    @property
    def mapped_positions(self) -> Int[Tensor, " R"]:
        """The pivot's rows that have a mapped row of any source, in order."""
        none = self.hidden_index[:0]
        return torch.cat([none, *(source.pivot_index for source in self.sources.values())]).unique()


@dataclass(frozen=True)
class ObjectiveInputs:
    """What an objective computes the terms of a batch from."""

    pivot: LogitRows
    """N rows with gradients, of as many largest entries as any objective of the loss requires."""
    query_logprobs: Mapping[str, Float[Tensor, "N K"]]
    """By source: the pivot's log-probability of each id in `SourceTargets.rows_at_pivot`; anything where that is -1."""
    targets: BatchTargets
    remaining_weight: Float[Tensor, " N"]
    """1 less what the objectives before count at each row, with their weights and those of sources and selections."""
    modules: Mapping[str, nn.Module] = field(default_factory=lambda: MappingProxyType({}))
    """By source: the module of this objective's own, if it has one."""
    step: int = 0
    """Steps of the optimizer before this one."""
