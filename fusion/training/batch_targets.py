"""Examples to one training batch: the pivot's tokens, each source's rows, and which of them belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusion.alignment import Alignment, Stretches, Words, align, stretches, translate
from fusion.cache import Cache
from fusion.core.rows import LogitRows, Pairs
from fusion.data.batching import pack, pad
from fusion.data.datasets import Example
from fusion.data.encode import Encoded
from fusion.models.loading import ModelRef
from fusion.transforms import AnyTransform, MappedTransform, OwnTransform
from fusion.weighting import AnyWeighting, Label, times


@dataclass(frozen=True)
class Reference:
    """A source as training sees it: a name, its rows on disk, and its ids in the pivot's vocabulary."""

    name: str
    cache: Cache
    vocabulary_map: Tensor
    """Pivot id of each source id, -1 for none. Shape [V_source]."""
    transforms: Sequence[AnyTransform] = ()
    """What is done to its rows before any objective sees them, in this order."""
    words: Words | None = None
    """Its tokens and the pivot's in one dictionary, where an objective compares how they are spelled."""
    hidden: bool = False
    """Whether its hidden states are read from the cache."""
    model: ModelRef | None = None
    """Where its weights are, if they are anywhere here."""


@dataclass(frozen=True)
class Matched:
    """One source's share of a batch."""

    rows: LogitRows
    """All its rows, ids in its own vocabulary, as transformed."""
    pairs: Pairs
    """Its rows and the pivot's that predict the same text."""
    weight: Tensor
    """How much each pair counts. Shape [M]."""
    comparable: Tensor
    """Places of the pairs that can be compared token by token, see `align.translate`. Shape [C]."""
    mapped: LogitRows
    """The source's rows there, with ids in the pivot's vocabulary."""
    stretches: Stretches
    """The text between shared boundaries."""
    other: LogitRows
    """All its rows of another answer to the prompts of the batch, where that is asked for and there is one."""

    @property
    def at(self) -> Tensor:
        """The pivot's row of each of the mapped rows. Shape [C]."""
        return self.pairs.pivot[self.comparable]

    def everywhere(self, about: LogitRows) -> tuple[LogitRows, Tensor]:
        """The mapped rows at the pivot's rows, empty ones where there is none, and how much each counts [N]."""
        unknown = _placed(self.mapped.gold, self, about, torch.nan)
        rows = dataclasses.replace(
            about,
            logprobs=_placed(self.mapped.logprobs, self, about, -torch.inf),
            ids=_placed(self.mapped.ids, self, about, -1),
            gold=unknown,
            mean=torch.full_like(unknown, torch.nan),
            std=torch.full_like(unknown, torch.nan),
            sampled=None if self.mapped.sampled is None else _placed(self.mapped.sampled, self, about, 0),
        )
        return rows, _placed(self.weight[self.comparable], self, about, 0)

    def to(self, device: Any) -> Matched:
        """The same on another device."""
        parts = {f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)}
        return Matched(**parts)


@dataclass(frozen=True)
class Targets:
    """What a batch is compared with."""

    at: Tensor
    """Where each row lies among the flattened [lines * T] positions. Shape [N]."""
    about: LogitRows
    """The pivot's rows without numbers."""
    sources: dict[str, Matched]
    labels: Sequence[Label]
    """Of each example."""

    @property
    def examples(self) -> int:
        """How many there are."""
        return len(self.labels)

    def to(self, device: Any, **_: Any) -> Targets:
        """The same on another device."""
        sources = {name: source.to(device) for name, source in self.sources.items()}
        return Targets(self.at.to(device), self.about.to(device), sources, self.labels)

    def counts(self) -> dict[str, int]:
        """How many values an objective of each unit has here, by source: the denominators of the means."""
        pairs = {
            f"{unit}/{name}": len(source.pairs) for name, source in self.sources.items() for unit in ("pair", "spelled")
        }
        mapped = {f"mapped/{name}": len(source.mapped) for name, source in self.sources.items()}
        lengths = {f"span/{name}": len(source.stretches) for name, source in self.sources.items()}
        return (
            {"row": len(self.about), "example": self.examples, "sources": len(self.taught)} | pairs | mapped | lengths
        )

    @property
    def taught(self) -> Tensor:
        """The pivot's rows that have a mapped row of any source, in order."""
        return torch.cat([self.at[:0], *(source.at for source in self.sources.values())]).unique()


@dataclass(frozen=True)
class Collator:
    """Turns example numbers into a batch. Everything about text lives here, nothing about the model's numbers."""

    examples: Sequence[Example]
    encoded: Sequence[Encoded]
    """The pivot's tokens of each example."""
    references: Sequence[Reference]
    """All sources: each counts by what it knows against the others, also where only some are learned from."""
    weighting: AnyWeighting
    alignment: Alignment = "prefix"
    pad_id: int = 0
    learn: Sequence[str] | None = None
    """Names of the sources to learn from; all if not said."""
    pivot: Cache | None = None
    """What the pivot said before training, for weightings that compare with it."""
    others: Sequence[str | None] | None = None
    """Id of another answer to the prompt of each example, where an objective looks at it."""
    line: int | None = None
    """Tokens of a line in which several texts are packed; None gives each text a line of its own, with padding."""

    def __call__(self, numbers: Sequence[int]) -> dict[str, Any]:
        """`input_ids` and `attention_mask` (or, packed, `position_ids`) of shape [lines, T], and `targets`."""
        chosen = [self.encoded[n] for n in numbers]
        if self.line is None:
            inputs, at, about = pad(chosen, "cpu", self.pad_id)
        else:
            inputs, at, about = pack(chosen, "cpu", self.line, self.pad_id)
        ids = [self.examples[n].id for n in numbers]
        texts = {i: self.examples[n].response.encode() for i, n in enumerate(numbers)}
        rows = [reference.cache.rows(ids, reference.hidden) for reference in self.references]
        pairs = [align(self.alignment, about, theirs, texts) for theirs in rows]
        before = about if self.pivot is None else dataclasses.replace(about, gold=self.pivot.rows(ids).gold)
        weights = self.weighting(before, rows, pairs)
        others = [
            self._other(reference, numbers, theirs) for reference, theirs in zip(self.references, rows, strict=True)
        ]
        parts = zip(self.references, rows, pairs, weights, others, strict=True)
        learn = [reference.name for reference in self.references] if self.learn is None else self.learn
        sources = {part[0].name: _matched(about, *part) for part in parts if part[0].name in learn}
        labels = [Label(self.examples[n].domain, id) for n, id in zip(numbers, ids, strict=True)]
        return {**inputs, "targets": Targets(at, about, sources, labels)}

    def _other(self, reference: Reference, numbers: Sequence[int], rows: LogitRows) -> LogitRows:
        """A source's rows of other answers, numbered as the examples whose prompts they answer; like `rows`, or none."""
        found = [(place, id) for place, n in enumerate(numbers) if self.others and (id := self.others[n]) is not None]
        if not found:
            return rows.select(slice(0, 0))
        theirs = reference.cache.rows([id for _, id in found], reference.hidden)
        return dataclasses.replace(theirs, example=torch.tensor([place for place, _ in found])[theirs.example])

    def at_step(self, targets: Targets, step: int) -> Targets:
        """The targets with weights as they are at this step of training."""
        factor = self.weighting.by_example(targets.labels, len(self.references), step)
        if factor is None:
            return targets
        place = {reference.name: number for number, reference in enumerate(self.references)}
        found = {}
        for name, source in targets.sources.items():
            (weight,) = times([source.weight], factor[place[name]][None], targets.about, [source.pairs])
            found[name] = dataclasses.replace(source, weight=weight)
        return dataclasses.replace(targets, sources=found)


def _matched(
    pivot: LogitRows, reference: Reference, rows: LogitRows, pairs: Pairs, weight: Tensor, other: LogitRows
) -> Matched:
    for transform in reference.transforms:
        if isinstance(transform, OwnTransform):
            rows = transform(rows, len(reference.vocabulary_map))
    comparable, mapped = translate(pivot, rows, pairs, reference.vocabulary_map)
    for transform in reference.transforms:
        if isinstance(transform, MappedTransform):
            mapped = transform(mapped)
    return Matched(rows, pairs, weight, comparable, mapped, stretches(pivot, rows, pairs), other)


def ask(targets: Targets) -> Tensor:
    """Ids of the pivot's vocabulary whose log-probabilities the sources want to know: [N, sum of K], -1 where none does."""
    none = torch.full((len(targets.about), 0), -1, device=targets.at.device)
    wanted = [_placed(source.mapped.ids, source, targets.about, -1) for source in targets.sources.values()]
    return torch.cat([none, *wanted], dim=1)


def _placed(values: Tensor, source: Matched, about: LogitRows, empty: int | float) -> Tensor:
    """What belongs to the mapped rows at the pivot's rows, and `empty` at the others."""
    everywhere = values.new_full((len(about), *values.shape[1:]), empty)
    return everywhere.index_copy(0, source.at, values)
