"""Examples to one training batch: the pivot's tokens, each source's cached rows, and which of them belong together.

What happens between reading a cache and `loss.backward()`, in order. Here, in `TrainingCollator`: `pad_texts` (or `pack_texts`)
makes the pivot's batch and its positions, `Cache.rows` reads the sources' rows, `align` pairs them with the positions, the
weighting gives each pair a weight, transforms of the source change its rows (the weighting has seen them unchanged),
`map_to_pivot` puts them into the pivot's vocabulary, transforms of mapped rows change those, `align_spans` finds the spans that
both models share: a `BatchTargets`. In the trainer: `compute_loss` lets `at_step` multiply in what depends on the step and runs
the pivot to its last hidden states; `Loss` makes rows of them (`Head.rows`) and asks each objective for its `terms`; weight
times mean, summed, is what Trainer calls `backward` on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fusion.alignment import Alignment, align, align_spans, gold_of_stop, map_to_pivot
from fusion.cache import Cache
from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, Pairs, Positions
from fusion.data.batching import pack_texts, pad_texts
from fusion.data.encode import Encoded
from fusion.data.example import Example
from fusion.models.loading import ModelRef
from fusion.objectives import BatchTargets, SourceTargets
from fusion.training.preferences import PreferenceData
from fusion.training.rollouts import RolloutData
from fusion.transforms import AnyTransform
from fusion.weighting import AnyWeighting, scale_by_example


@dataclass(frozen=True)
class TrainingSource:
    """A source as training sees it: a name, its rows on disk, and its ids in the pivot's vocabulary."""

    name: str
    cache: Cache
    vocabulary_map: Int[Tensor, " V"]
    """Pivot id of each source id, -1 for none."""
    transforms: Sequence[AnyTransform] = ()
    """What is done to its rows before any objective sees them, in this order."""
    spelling_distance: Callable[[], nn.Module] = nn.Identity
    """Builds the distance of spellings between its tokens and the pivot's, for objectives that compare them."""
    read_hidden: bool = False
    """Whether its hidden states are read from the cache."""
    model: ModelRef | None = None
    """Where its weights are, if they are anywhere here."""
    stop_ids: Sequence[int] = ()
    """Ids with which it says that an answer is over; for its signal on texts that the pivot wrote."""


@dataclass(frozen=True)
class TrainingCollator:
    """Turns numbers of examples into a batch. Everything about text lives here, nothing about the model's numbers."""

    examples: Sequence[Example]
    encoded: Sequence[Encoded]
    """The pivot's tokens of each example."""
    sources: Sequence[TrainingSource]
    """All sources: each counts by what it knows against the others, also where only some are learned from."""
    weighting: AnyWeighting
    _: dataclasses.KW_ONLY
    alignment: Alignment = "prefix"
    pad_id: int = 0
    learn_from: Sequence[str] | None = None
    """Names of the sources to learn from; all if not said."""
    pivot_cache: Cache | None = None
    """What the pivot said before training, for weightings that compare with it."""
    other_answers: Sequence[str | None] | None = None
    """Id of another answer to the prompt of each example, where an objective reads it."""
    eligibility: Mapping[str, tuple[float, ...]] | None = None
    """By prompt id: of each source, the share of its answers to the prompt that passed, for weightings that ask for it."""
    rollouts: RolloutData | None = None
    """In rounds, what is known of the examples that the pivot wrote; sources have read these alone."""
    preferences: PreferenceData | None = None
    """Where right and wrong answers are compared: which examples are pairs. A number is then that of a pair, and its answers
    stand in one batch, each once."""
    line_length: int | None = None
    """Tokens of a line in which several texts are packed; None gives each text a line of its own, with padding."""

    def __len__(self) -> int:
        """Return how many examples there are to learn from, or pairs of them."""
        return len(self.examples) if self.preferences is None else len(self.preferences.pairs)

    def __call__(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Return `input_ids` and `attention_mask` (or, packed, `position_ids`) of shape [lines, T], and `targets`."""
        units, numbers = numbers, numbers if self.preferences is None else self.preferences.answers(numbers)
        encoded, examples = [self.encoded[n] for n in numbers], [self.examples[n] for n in numbers]
        inputs, hidden_index, positions = self.lay_out(encoded)
        texts = {number: example.response.encode() for number, example in enumerate(examples)}
        rows = [self._source_rows(source, numbers) for source in self.sources]
        pairs = [align(self.alignment, positions, each, texts) for each in rows]
        infos = [self._info(number) for number in numbers]
        weights = self.weighting.weigh(self._pivot_before(positions, numbers), rows, pairs, infos)
        learn_from = [source.name for source in self.sources] if self.learn_from is None else self.learn_from
        targets: dict[str, SourceTargets] = {}
        for source, its_rows, its_pairs, weight in zip(self.sources, rows, pairs, weights, strict=True):
            if source.name in learn_from:
                other = self._other_answer_rows(source, numbers, its_rows)
                targets[source.name] = _source_targets(positions, source, its_rows, its_pairs, weight, other)
        rollouts = None
        if self.rollouts is not None:
            rollouts = self.rollouts.targets(positions, numbers, [info.domain for info in infos])
        preferences = None if self.preferences is None else self.preferences.targets(units, numbers)
        lines, length = inputs["input_ids"].shape
        return {
            **inputs,
            "targets": BatchTargets(hidden_index, positions, targets, infos, rollouts, preferences, (lines, length)),
        }

    def lay_out(self, texts: Sequence[Encoded]) -> tuple[dict[str, Tensor], Tensor, Positions]:
        """Return the model inputs of texts, padded or packed, the index of each row's hidden state, and the positions."""
        if self.line_length is None:
            return pad_texts(texts, "cpu", self.pad_id)
        return pack_texts(texts, "cpu", self.line_length, self.pad_id)

    def at_step(self, targets: BatchTargets, step: int) -> BatchTargets:
        """Return the targets with weights as they are at this step of training."""
        if not self.sources:  # plain fine-tuning: there is nothing to weigh
            return targets
        factors = self.weighting.example_factors(targets.examples, len(self.sources), step)
        if factors is None:
            return targets
        sources = {}
        for factor, each in zip(factors, self.sources, strict=True):
            if source := targets.sources.get(each.name):
                weight = scale_by_example(source.weight, factor, targets.positions, source.pairs)
                sources[each.name] = dataclasses.replace(source, weight=weight)
        return dataclasses.replace(targets, sources={name: sources[name] for name in targets.sources})

    def _info(self, number: int) -> ExampleInfo:
        example = self.examples[number]
        part = None if self.preferences is None else self.preferences.part(number)
        found = (
            ExampleInfo(example.domain, example.id, part)
            if self.rollouts is None
            else self.rollouts.info(number, example.domain)
        )
        return found._replace(eligibility=self.eligibility.get(example.prompt_id) if self.eligibility else None)

    def _source_rows(self, source: TrainingSource, numbers: Sequence[int]) -> LogitRows:
        """A source's rows of a batch, `example` counting along it; in rounds it has read only what the pivot wrote."""
        if self.rollouts is not None:
            return gold_of_stop(self.rollouts.rows(source.cache, numbers, source.read_hidden), source.stop_ids)
        return source.cache.rows([self.examples[number].id for number in numbers], source.read_hidden)

    def _pivot_before(self, positions: Positions, numbers: Sequence[int]) -> LogitRows:
        """The pivot's rows as weightings read them: what it said before training where that is cached, else no numbers."""
        unknown = torch.full((len(positions),), torch.nan)
        none, gold = unknown.new_empty(len(positions), 0), unknown
        if self.pivot_cache is not None and self.rollouts is not None:
            gold = self.rollouts.gold(self.pivot_cache, positions, numbers)
        elif self.pivot_cache is not None:
            gold = self.pivot_cache.rows([self.examples[number].id for number in numbers]).gold
        return LogitRows.at(positions, logprobs=none, ids=none.long(), gold=gold, mean=unknown, std=unknown)

    def _other_answer_rows(self, source: TrainingSource, numbers: Sequence[int], rows: LogitRows) -> LogitRows:
        """A source's rows of other answers, numbered as the examples whose prompts they answer; none of `rows` without."""
        others = [None if self.other_answers is None else self.other_answers[n] for n in numbers]
        answered = [(number, id) for number, id in enumerate(others) if id is not None]
        if not answered:
            return rows.select(slice(0, 0))
        other = source.cache.rows([id for _, id in answered], source.read_hidden)
        return dataclasses.replace(other, example=torch.tensor([number for number, _ in answered])[other.example])


def _source_targets(
    positions: Positions,
    source: TrainingSource,
    rows: LogitRows,
    pairs: Pairs,
    weight: Float[Tensor, " M"],
    other_answer: LogitRows,
) -> SourceTargets:
    for transform in source.transforms:
        rows = transform.transform_rows(rows, len(source.vocabulary_map))
    mapped_pair_index, mapped = map_to_pivot(positions, rows, pairs, source.vocabulary_map)
    for transform in source.transforms:
        mapped = transform.transform_mapped(mapped)
    spans = align_spans(positions, rows, pairs)
    return SourceTargets(rows, pairs, weight, mapped_pair_index, mapped, spans, other_answer)
