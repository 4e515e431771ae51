"""What rounds take at most: every text that the pivot writes becomes as long as it may."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from fusion.config import Rounds, round_config
from fusion.plan.architecture import load_architecture
from fusion.plan.estimates import Planner, StageEstimate
from fusion.plan.flops import Counts
from fusion.plan.inference import extraction_stage, writing_stage
from fusion.plan.response_costs import generation_counts, reading_counts
from fusion.plan.trainings import checkpoints_activations, configured_engine, training_memory, training_stage
from fusion.stages.context import RunContext
from fusion.stages.rounds.learn import WEAKER
from fusion.stages.rounds.read import REFERENCE, as_trained, reader_names


@dataclass(frozen=True)
class RoundPlanner(Planner):
    """A round as a run of its own, whose examples are the texts that the pivot wrote and those that are replayed."""

    run: Planner
    """The run that it is a round of."""
    rounds: Rounds

    @staticmethod
    def of(run: Planner, rounds: Rounds) -> RoundPlanner:
        """Return what a round of a run is estimated from; all of its rounds take the same."""
        config = round_config(run.config, rounds, 1, Path(run.config.pivot.path))
        config = config.model_copy(update={"pivot": run.config.pivot})  # as large as what the round before leaves
        context = RunContext(config, for_plan=run.context.for_plan, data=run.context.data)
        alike = rounds.learn_from == "pairwise"  # models like the pivot in the sources' places
        sizes = dict.fromkeys(run.context.models, run.sizes["pivot"]) if alike else run.sizes
        if not run.from_settings:
            known = run.context.tokenizers
            vars(context).update(tokenizers=dict.fromkeys(known, known["pivot"]) if alike else known)
        return RoundPlanner(context, sizes, run.from_settings, run, rounds)

    @override
    def counts(self, name: str, once: bool = False) -> Counts:
        if self.rounds.learn_from == "pairwise":
            name = "pivot"
        written = reading_counts(
            self.run.counts(name, once=True), self.prompts * self.rounds.num_generations, self.longest(name)
        )
        texts = self.run.counts(name)
        return written if once else written.whole() + texts.scaled(self.replayed(written.examples, texts.examples))

    @override
    def validation_counts(self) -> Counts:
        return self.run.validation_counts()

    def replayed(self, written: int, known: int) -> int:
        """Examples of the first training that are learned from again."""
        return min(known, round(self.rounds.replay * written))

    @property
    def prompts(self) -> int:
        """Prompts that are answered in a round."""
        if self.from_settings:
            return min(self.rounds.prompts, self.run.counts("pivot", once=True).examples)
        return min(self.rounds.prompts, len({example.prompt_id for example in self.run.context.original_examples}))

    def longest(self, name: str) -> int:
        """Tokens of a model for the longest text: as many for each of the pivot's as in the training examples."""
        most = min(self.rounds.max_completion_length, self.config.data.max_length)
        own, pivot = self.run.counts(name, once=True), self.run.counts("pivot", once=True)
        return -(-most * own.rows * pivot.examples // (own.examples * pivot.rows))  # rounded up

    def as_it_reads(self, name: str) -> RoundPlanner:
        """The pivot reads as it is trained, others as ever."""
        if name != "pivot":
            return self
        config = self.config.model_copy(update={"extract": as_trained(self.config)})
        context = dataclasses.replace(self.context, config=config)
        if not self.from_settings:
            vars(context).update(tokenizers=self.context.tokenizers)
        return dataclasses.replace(self, context=context)


def round_stages(planner: Planner) -> list[StageEstimate]:
    """Return every stage of every round, and of comparing them, under the names that they have in run.json."""
    if (rounds := planner.config.rounds) is None:
        return []
    one = RoundPlanner.of(planner, rounds)
    writing = [_write(one)] if rounds.rollouts is None else []  # else another program writes
    every = [*writing, *(_read(one, name) for name in reader_names(one.config, rounds)), _train(one)]
    validate = [_validate(one)] if planner.config.data.validation else []
    stages = [_named(0, each) for each in validate]
    for number in range(1, rounds.count + 1):
        stages += [_named(number, each) for each in [*every, *validate]]
    return stages


def _named(number: int, stage: StageEstimate) -> StageEstimate:
    return dataclasses.replace(stage, stage=f"round {number}: {stage.stage}", round=number)


def _write(planner: RoundPlanner) -> StageEstimate:
    return _answers(planner, "write", planner.prompts, planner.rounds.num_generations)


def _validate(planner: RoundPlanner) -> StageEstimate:
    prompts = planner.run.validation_counts().examples
    return _answers(planner, "validate", prompts, planner.rounds.validation_generations)


def _answers(planner: RoundPlanner, stage: str, prompts: int, samples: int) -> StageEstimate:
    texts = planner.run.counts("pivot", once=True)
    counts = generation_counts(texts, prompts, samples, planner.rounds.max_completion_length)
    return writing_stage(planner, stage, "pivot", counts)


def _read(planner: RoundPlanner, name: str) -> StageEstimate:
    if name.endswith(WEAKER):
        return _weaker_reads(planner, name, name.removesuffix(WEAKER))
    model = "pivot" if name == REFERENCE else name
    return extraction_stage(planner.as_it_reads(model), f"{name} reads", model)


def _weaker_reads(planner: RoundPlanner, name: str, source: str) -> StageEstimate:
    """The weaker relative of a source reads what the source reads; it may be of another size."""
    model = next(each for each in planner.config.sources if each.name == source).weaker_model
    known = {source: load_architecture(model.ref)} if model.backend.has_weights else {}
    return extraction_stage(dataclasses.replace(planner, sizes={**planner.sizes, **known}), f"{name} reads", source)


def _train(planner: RoundPlanner) -> StageEstimate:
    checkpointed = checkpoints_activations(planner.config.training)
    process = training_memory(planner, configured_engine(planner.config), checkpointed)
    return dataclasses.replace(training_stage(planner, "unified", process), stage="train")
