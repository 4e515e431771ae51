"""What each stage of a run will take: examples, tokens, steps, disk, memory, work. No weights are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fusion import models
from fusion.cache import drawn
from fusion.cache.codec import bytes_per_row
from fusion.config import Config, Extract, fine_tuning
from fusion.conflicts import WHOLE
from fusion.head import AT_ONCE
from fusion.job import Job
from fusion.objectives import OwningObjective
from fusion.plan import memory
from fusion.plan.counts import heldout_counts, training_counts
from fusion.plan.facts import Architecture, architecture
from fusion.plan.memory import Engine, Memory, Precision
from fusion.plan.responses import answering, reading, writer
from fusion.plan.work import Counts, forward, training
from fusion.responses import EverySource
from fusion.train import ACCUMULATED, BASELINE, SIZE, owned, trainings

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
        return self.sizes[name].vocabulary if self.by_hand else models.vocabulary(self.job.tokenizers[name])

    def read_logits(self, name: str) -> memory.Bytes:
        """Bytes of a chunk of logits that is read and dropped, and of a copy of it."""
        return memory.logits(self.vocabulary(name), AT_ONCE, copies=1)

    def trained_logits(self, rows: int) -> memory.Bytes:
        """Bytes of the logits that a micro-batch of so many rows keeps, and of their gradient."""
        config, vocabulary = self.config, self.vocabulary("pivot")
        most = config.head_chunk * vocabulary if config.head_chunk else max(config.head_budget << 18, AT_ONCE)
        return memory.logits(vocabulary, min(rows * vocabulary, most), copies=1)

    def micro_batch(self) -> tuple[int, int]:
        """Examples that one process takes at once, and how many times in a step."""
        given = self.config.engine.batches(self.config.training, self.config.plan.gpus)
        return int(given.get(*SIZE)), int(given.get(*ACCUMULATED))


def plan(job: Job, count: bool = False) -> Plan:
    """Estimates of every stage, in order. With `plan.tokens` and not `count` neither data nor tokenizers are read."""
    job = replace(job, expected=True)
    sizes = {name: architecture(model.ref) for name, model in job.models.items() if job.backend(name).weights}
    planner = Planner(job, sizes, job.config.plan.tokens is not None and not count)
    names = list(trainings(job.config.strategies, job.config.baseline, [source.name for source in job.config.sources]))
    own = bool(job.config.training.get("gradient_checkpointing"))
    engines = {engine: _rank(planner, engine, own) for engine in _possible(job.config)}
    checkpointed = {engine: _rank(planner, engine, True) for engine in engines}
    chosen = engine_of(job.config)
    stages = [
        *_fine_tunings(planner, chosen),
        *_responses(planner),
        *(_extract(planner, name) for name in job.models),
        *(_train(planner, name, engines[chosen]) for name in names),
        *_files(planner),
        *_evaluations(planner, names),
    ]
    shipped = [name for name, size in sizes.items() if size.shipped]
    return Plan(stages, engines, checkpointed, chosen, planner.by_hand, shipped)


def engine_of(config: Config) -> Engine:
    """The engine that the run would use on so many GPUs."""
    kind = config.engine.kind
    plain: memory.Kind = "single" if config.plan.gpus == 1 else "ddp"
    return Engine(plain if kind == "auto" else kind, config.engine.offload)


def _possible(config: Config) -> list[Engine]:
    """The configured one; and with one GPU the plain one and those that offload, with several all but the plain one;
    of those, where terms own modules, the ones that can train them."""
    one, chosen = config.plan.gpus == 1, engine_of(config)
    whole = any(isinstance(objective, OwningObjective) for objective in config.objectives)
    return [
        e
        for e in memory.ENGINES
        if e == chosen
        or (
            (e.kind == "single" or e.offload != "none" if one else e.kind != "single")
            and (e.kind in WHOLE or not whole)
        )
    ]


def _precision(config: Config) -> Precision:
    width = BYTES[config.dtype]
    mixed = bool(config.training.get("bf16") or config.training.get("fp16"))
    return Precision(width, 2 if mixed else width, mixed)


def _rank(planner: Planner, engine: Engine, checkpointed: bool) -> Memory:
    """One process of a training of the pivot."""
    config, size = planner.config, planner.sizes["pivot"]
    (batch, _), length = planner.micro_batch(), planner.counts("pivot").longest
    precision = _precision(config)
    kept = memory.activations(size, batch * length, length, precision, batch > 1 and not config.packing, checkpointed)
    states = memory.states(size, engine, precision, config.plan.gpus)
    trained, frozen = _owned(planner)
    states = replace(  # float32, and never spread over processes
        states,
        weights=states.weights + 4 * trained + frozen * BYTES[config.dtype],
        gradients=states.gradients + 4 * trained,
        optimizer=states.optimizer + 8 * trained,
    )
    if _apart(config):
        states = replace(states, gradients=2 * states.gradients)
    if config.adapter:  # its own gradients and moments are a hundredth of these, and not counted
        states = replace(states, gradients=0, optimizer=0, host=0)
    logits = planner.trained_logits(batch * length) + memory.head_gradient(size, precision)
    return replace(states, activations=kept, logits=logits)


def _apart(config: Config) -> bool:
    """Whether gradients of some terms are kept beside those of the others."""
    return any(objective.yields and objective.weight for objective in config.objectives)


def _owned(planner: Planner) -> tuple[int, int]:
    """Numbers that the modules of terms hold for all sources: trained and frozen ones."""
    config, width = planner.config, planner.sizes["pivot"].hidden
    sources = [source.name for source in config.sources if source.name in planner.sizes]
    each = [
        owned.numbers(config.objectives, width, planner.sizes[name].hidden, planner.vocabulary(name))
        for name in sources
    ]
    return sum(trained for trained, _ in each), sum(frozen for _, frozen in each)


def _fine_tunings(planner: Planner, engine: Engine) -> list[Estimate]:
    """Of the sources that are fine-tuned before they teach."""
    stages = []
    for source in planner.config.sources:
        if source.fine_tune is not None:
            job = Job(fine_tuning(planner.config, source))
            alone = replace(planner, job=job, sizes={"pivot": planner.sizes[source.name]})
            checkpointed = bool(job.config.training.get("gradient_checkpointing"))
            found = _train(alone, BASELINE, _rank(alone, engine, checkpointed))
            stages.append(replace(found, stage=f"fine-tune {source.name}"))
    return stages


def _responses(planner: Planner) -> list[Estimate]:
    """Of those sources that run here; nothing where the data's own responses are learned from."""
    job = planner.job
    if not job.by_prompt:
        return []
    how, copies = job.written, len(job.writers) if isinstance(job.written, EverySource) else 1
    stages = []
    for name in (name for name in job.writers if name in planner.sizes):
        counts = answering(planner.counts(name, once=True), copies, how.samples, how.max_new_tokens)
        stages.append(_written(planner, f"respond {name}", name, counts))
    for name in (name for name in job.readers if name in planner.sizes):
        others = sum(other != name for other in job.writers)
        counts = reading(planner.counts(name, once=True), copies, how.samples, how.max_new_tokens, others)
        stages.append(_written(planner, f"read responses {name}", name, counts))
    return stages


def _written(planner: Planner, stage: str, name: str, counts: Counts) -> Estimate:
    extract, size = planner.config.extract, planner.sizes[name]
    at_once = max(extract.batch_tokens, counts.longest)
    rank = writer(size, at_once, BYTES[extract.dtype], planner.read_logits(name))
    disk = 4 * counts.rows  # about so many bytes of text a token
    return Estimate(stage, counts.examples, counts.tokens, disk=disk, memory=rank, work=forward(size, counts))


def _extract(planner: Planner, name: str) -> Estimate:
    extract, counts, vocabulary = planner.config.extract, planner.counts(name, once=True), planner.vocabulary(name)
    width = planner.sizes[name].hidden if extract.hidden and name != "pivot" else 0
    disk = round(counts.rows * _row(extract, name == "pivot", vocabulary, width))
    found = Estimate(f"extract {name}", counts.examples, counts.tokens, disk=disk)
    if name not in planner.sizes:  # runs behind a server, not here
        return found
    size, at_once = planner.sizes[name], max(extract.batch_tokens, counts.longest)
    rank = memory.extraction(size, at_once, BYTES[extract.dtype], planner.read_logits(name))
    return replace(found, memory=rank, work=forward(size, counts))


def _row(extract: Extract, pivot: bool, vocabulary: int, width: int) -> float:
    """Bytes that a row takes, with `width` numbers of hidden state.

    Of what is drawn at random, as many are different as in the paper: 12 of 50 (a guess here).
    """
    if extract.sampling is not None and not pivot:
        different = min(vocabulary, math.ceil(extract.sampling.draws * 12 / 50))
        return bytes_per_row(0, extract.codec, vocabulary, width) + drawn.bytes_per_row(different, vocabulary)
    k = 1 if pivot else vocabulary if extract.top_k == "all" else min(extract.top_k, vocabulary)
    return float(bytes_per_row(k, extract.codec, vocabulary, width))


def _train(planner: Planner, name: str, rank: Memory) -> Estimate:
    config, size, counts = planner.config, planner.sizes["pivot"], planner.counts("pivot")
    given = config.training
    batch, accumulated = planner.micro_batch()
    each = batch * accumulated * config.plan.gpus
    steps_an_epoch = math.ceil(counts.examples / each)
    steps = int(given.get("max_steps", -1))
    epochs = float(given.get("num_train_epochs", 3.0)) if steps < 0 else steps / steps_an_epoch
    steps = steps if steps >= 0 else math.ceil(epochs * steps_an_epoch)
    rows = batch * counts.rows / counts.examples
    again = (
        rows > config.head_chunk if config.head_chunk else rows * planner.vocabulary("pivot") > config.head_budget << 18
    )
    back = 2 if _apart(config) and name != BASELINE else 1
    work = epochs * training(size, counts, bool(given.get("gradient_checkpointing")), again, back)
    disk = _saved(size, config) + _checkpoints(config, steps, steps_an_epoch) * _checkpoint(size, config)
    return Estimate(f"train {name}", counts.examples, round(epochs * counts.tokens), steps, disk, rank, work)


def _saved(size: Architecture, config: Config) -> int:
    return size.parameters * BYTES[config.dtype]


def _checkpoint(size: Architecture, config: Config) -> int:
    """A model and its optimizer: plain torch keeps both moments in the type of the weights, DeepSpeed 12 bytes a parameter."""
    width = BYTES[config.dtype]
    ours = 12 if engine_of(config).kind.startswith("zero") else 2 * width
    return size.parameters * (width + ours)


def _checkpoints(config: Config, steps: int, steps_an_epoch: int) -> int:
    """How many lie on the disk at the most; a new one is written before the oldest goes."""
    given = config.training
    strategy, limit = str(given.get("save_strategy", "steps")), given.get("save_total_limit", 1)
    if strategy == "no":
        return 0
    every = float(given.get("save_steps", 500)) if strategy == "steps" else steps_an_epoch
    saves = math.ceil(steps / max(1, every if every >= 1 else every * steps))  # the last step saves too
    return saves if limit is None else min(saves, int(limit) + 1)


def _files(planner: Planner) -> list[Estimate]:
    config, size = planner.config, planner.sizes["pivot"]
    saved = _saved(size, config)
    at_once = 4 * (len(config.sources) + 2) * size.largest_tensor  # float32
    merge = Estimate("merge", disk=2 * saved, memory=Memory(host=at_once))
    return [*([merge] if "pairwise" in config.strategies else []), Estimate("fuse", disk=saved)]


def _evaluations(planner: Planner, trained: list[str]) -> list[Estimate]:
    """Every model of the run on the held-out examples; answers that are generated are not counted."""
    like = {name: name for name in planner.sizes if planner.config.evaluation.untouched}
    like |= {name: "pivot" for name in trained if not name.startswith("pairwise/")}
    if "pairwise" in planner.config.strategies:
        like["pairwise"] = "pivot"
    return [_evaluate(planner, name, kind) for name, kind in like.items()]


def _evaluate(planner: Planner, name: str, kind: str) -> Estimate:
    size, counts = planner.sizes[kind], heldout_counts(planner.job, kind, planner.by_hand)
    at_once = max(planner.config.evaluation.batch_tokens, counts.longest)
    rank = memory.extraction(size, at_once, BYTES[planner.config.extract.dtype], planner.read_logits(kind))
    disk = 1000 * counts.examples
    work = forward(size, counts)
    return Estimate(f"evaluate {name}", counts.examples, counts.tokens, disk=disk, memory=rank, work=work, shared=False)
