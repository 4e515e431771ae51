"""Estimates of stages, and what all of them are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fusion.config import Config
from fusion.models import loading
from fusion.models.head import MAX_LOGITS_PER_CHUNK
from fusion.plan import memory
from fusion.plan.architecture import Architecture
from fusion.plan.counts import training_counts, validation_counts
from fusion.plan.flops import Counts
from fusion.plan.memory import EngineOption, Memory
from fusion.stages.context import RunContext
from fusion.training import ACCUMULATION, BATCH_SIZE

NO_MEMORY = Memory()
BYTES_PER_NUMBER = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class StageEstimate:
    """What one stage will take. Sizes in bytes; None where a stage has no such thing."""

    stage: str
    examples: int = 0
    tokens: int = 0
    steps: int | None = None
    disk: int = 0
    memory: Memory = NO_MEMORY
    """Of one process, at the peak."""
    flops: int | float = 0
    """Floating-point operations of all processes together."""
    validation_points: int = 0
    """How often a training is read on validation examples, which is part of `flops`."""
    validation_flops: int | float = 0
    """What that is of `flops`."""
    parallel: bool = True
    """Whether all processes divide the work; else one does it while the others wait."""
    round: int | None = None
    """Number of the round that it belongs to, if to any."""


@dataclass(frozen=True)
class RunPlan:
    """Estimates of all stages of a run, and what they rest on."""

    stages: list[StageEstimate]
    engines: dict[EngineOption, Memory]
    """Memory of one process in a training, by engine, with gradient checkpointing as configured."""
    checkpointed: dict[EngineOption, Memory]
    """The same with gradient checkpointing."""
    engine: EngineOption
    """The configured engine."""
    from_settings: bool
    """Whether counts come from settings (`plan.tokens`) instead of the data."""
    bundled: list[str]
    """Models whose sizes came from architectures.json."""


def rounds_as_one(stages: Sequence[StageEstimate]) -> list[StageEstimate]:
    """Return the stages with those of several rounds that do the same summed up, as `rounds 1-3: train`."""
    kinds: dict[str, list[StageEstimate]] = {}
    for each in stages:
        kind = each.stage if each.round is None else each.stage.removeprefix(f"round {each.round}: ")
        kinds.setdefault(kind if each.round is None else f"rounds: {kind}", []).append(each)
    return [found[0] if len(found) == 1 else _summed(kind, found) for kind, found in kinds.items()]


def _summed(kind: str, stages: Sequence[StageEstimate]) -> StageEstimate:
    first, last = stages[0], stages[-1]
    steps = None if first.steps is None else sum(each.steps or 0 for each in stages)
    return replace(
        first,
        stage=kind.replace("rounds:", f"rounds {first.round}-{last.round}:"),
        examples=sum(each.examples for each in stages),
        tokens=sum(each.tokens for each in stages),
        steps=steps,
        disk=sum(each.disk for each in stages),
        flops=sum(each.flops for each in stages),
    )


@dataclass(frozen=True)
class Planner:
    """What every stage is estimated from: a run, the sizes of its models, and where its counts come from."""

    context: RunContext
    sizes: dict[str, Architecture]
    """Models whose weights are read here, by name."""
    from_settings: bool
    """Whether counts come from settings (`plan.tokens`) instead of the data."""

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.context.config

    def counts(self, name: str, once: bool = False) -> Counts:
        """What a model reads of the training examples; see `training_counts`."""
        return training_counts(self.context, name, self.from_settings, once=once)

    def validation_counts(self) -> Counts:
        """What the pivot reads of the validation examples at once; see `counts.validation_counts`."""
        return validation_counts(self.context, self.from_settings)

    def vocabulary(self, name: str) -> int:
        """Tokens that logits are made for."""
        return (
            self.sizes[name].vocab_size
            if self.from_settings
            else loading.vocabulary_size(self.context.tokenizers[name])
        )

    def read_logits(self, name: str) -> memory.Bytes:
        """Bytes of a chunk of logits that is read and dropped, and of a copy of it."""
        return memory.logits(self.vocabulary(name), MAX_LOGITS_PER_CHUNK, copies=1)

    def trained_logits(self, rows: int) -> memory.Bytes:
        """Bytes of the logits that a micro-batch of so many rows keeps, and of their gradient."""
        config, vocabulary = self.config, self.vocabulary("pivot")
        most = (
            config.logits_chunk * vocabulary
            if config.logits_chunk
            else max(config.logits_budget << 18, MAX_LOGITS_PER_CHUNK)
        )
        return memory.logits(vocabulary, min(rows * vocabulary, most), copies=1)

    def micro_batch(self, training: Mapping[str, Any] | None = None) -> tuple[int, int]:
        """Examples that one process takes at once, and how many times in a step, by the run's TrainingArguments or others."""
        given = self.config.engine.batch_arguments(dict(training or self.config.training), self.config.plan.gpus)
        return int(given.get(*BATCH_SIZE)), int(given.get(*ACCUMULATION))
