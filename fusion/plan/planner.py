"""What an estimate is, and what all stages are estimated from."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.config import Config
from fusion.models import loading
from fusion.models.head import AT_ONCE
from fusion.plan import memory
from fusion.plan.counts import training_counts
from fusion.plan.facts import Architecture
from fusion.plan.memory import Engine, Memory
from fusion.plan.work import Counts
from fusion.stages.context import Job
from fusion.training import ACCUMULATION, BATCH_SIZE

NOTHING = Memory()
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Estimate:
    """One stage. Sizes in bytes; None where a stage has no such thing."""

    stage: str
    examples: int = 0
    tokens: int = 0
    steps: int | None = None
    disk: int = 0
    memory: Memory = NOTHING
    """Of one process, at the peak."""
    work: int | float = 0
    """Floating-point operations of all processes together."""
    shared: bool = True
    """Whether all processes share the work; else one does it while the others wait."""


@dataclass(frozen=True)
class Plan:
    """Estimates of all stages, and what they rest on."""

    stages: list[Estimate]
    engines: dict[Engine, Memory]
    """A process of a training, by engine, with gradient checkpointing as configured."""
    checkpointed: dict[Engine, Memory]
    """The same with gradient checkpointing."""
    engine: Engine
    """The configured one."""
    by_hand: bool
    """Whether counts were said instead of counted."""
    shipped: list[str]
    """Models whose sizes came from facts.json."""


@dataclass(frozen=True)
class Planner:
    """A run, the sizes of its models, and whether its counts are said by hand."""

    job: Job
    sizes: dict[str, Architecture]
    by_hand: bool

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.job.config

    def counts(self, name: str, once: bool = False) -> Counts:
        """What a model reads of the training examples."""
        return training_counts(self.job, name, self.by_hand, once)

    def vocabulary(self, name: str) -> int:
        """Tokens that logits are made for."""
        return self.sizes[name].vocabulary if self.by_hand else loading.vocabulary(self.job.tokenizers[name])

    def read_logits(self, name: str) -> memory.Bytes:
        """Bytes of a chunk of logits that is read and dropped, and of a copy of it."""
        return memory.logits(self.vocabulary(name), AT_ONCE, copies=1)

    def trained_logits(self, rows: int) -> memory.Bytes:
        """Bytes of the logits that a micro-batch of so many rows keeps, and of their gradient."""
        config, vocabulary = self.config, self.vocabulary("pivot")
        most = config.logits_chunk * vocabulary if config.logits_chunk else max(config.logits_budget << 18, AT_ONCE)
        return memory.logits(vocabulary, min(rows * vocabulary, most), copies=1)

    def micro_batch(self) -> tuple[int, int]:
        """Examples that one process takes at once, and how many times in a step."""
        given = self.config.engine.batch_arguments(self.config.training, self.config.plan.gpus)
        return int(given.get(*BATCH_SIZE)), int(given.get(*ACCUMULATION))
