"""What preferences take at most: as many pairs of each prompt as are asked for, every answer as long as it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from fusion.config import Preferences, preference_config
from fusion.plan.estimates import Planner, StageEstimate
from fusion.plan.flops import Counts
from fusion.plan.inference import extraction_stage
from fusion.plan.response_costs import reading_counts
from fusion.plan.trainings import checkpoints_activations, configured_engine, training_memory, training_stage
from fusion.stages.context import RunContext


@dataclass(frozen=True)
class PreferencePlanner(Planner):
    """The last step of a run as a run of its own, whose examples are pairs, and read are their answers."""

    run: Planner
    """The run that it is the last step of."""
    preferences: Preferences

    @staticmethod
    def of(run: Planner, preferences: Preferences) -> PreferencePlanner:
        """Return what the last step of a run is estimated from."""
        config = preference_config(run.config, preferences, Path(run.config.pivot.path))
        config = config.model_copy(update={"pivot": run.config.pivot})  # as large as what the step before leaves
        context = RunContext(config, for_plan=run.context.for_plan, data=run.context.data)
        if not run.from_settings:
            vars(context).update(tokenizers=run.context.tokenizers)
        return PreferencePlanner(context, run.sizes, run.from_settings, run, preferences)

    @override
    def counts(self, name: str, once: bool = False) -> Counts:
        """What a model reads of the answers; without `once`, `examples` are the pairs that they make."""
        answers = self.pairs * self.answers_per_pair
        read = reading_counts(self.run.counts(name, once=True), answers, self.longest(name))
        return read if once else dataclasses.replace(read.whole(), examples=self.pairs)

    @override
    def validation_counts(self) -> Counts:
        return self.run.validation_counts()

    @property
    def pairs(self) -> int:
        """Pairs, where each prompt has as many as are asked for."""
        if self.from_settings:
            return self.preferences.pairs_per_prompt * self.run.counts("pivot", once=True).examples
        prompts = {example.prompt_id for example in self.run.context.original_examples}
        return self.preferences.pairs_per_prompt * len(prompts)

    @property
    def answers_per_pair(self) -> int:
        """Answers that stand together."""
        own = any(each.weight and each.requirements.own_answers for each in self.preferences.objectives)
        return 3 if own else 2

    def longest(self, name: str) -> int:
        """Tokens of a model for the longest answer: as many for each of its writer's as in the training examples."""
        run, context = self.run.config, self.run.context
        by_sources = context.responding.settings.max_new_tokens if context.has_generated_responses else 0
        by_pivot = run.rounds.max_completion_length if run.rounds else 0
        most = min(max(by_sources, by_pivot), run.data.max_length)
        own, pivot = self.run.counts(name, once=True), self.run.counts("pivot", once=True)
        return -(-most * own.rows * pivot.examples // (own.examples * pivot.rows))  # rounded up


@dataclass(frozen=True)
class _AnswersAtOnce(PreferencePlanner):
    """The same for the memory of a step, which holds the answers of all its pairs."""

    @override
    def micro_batch(self, training: Mapping[str, Any] | None = None) -> tuple[int, int]:
        pairs, accumulated = super().micro_batch(training)
        return pairs * self.answers_per_pair, accumulated


def preference_stages(planner: Planner) -> list[StageEstimate]:
    """Return the stages of preferences under the names that they have in run.json; none where there are none."""
    if (preferences := planner.config.preferences) is None:
        return []
    last = PreferencePlanner.of(planner, preferences)
    asks = any(each.weight and each.requirements.sources for each in preferences.objectives)
    readers = ["pivot", *([source.name for source in planner.config.sources] if asks else [])]
    return [*(_read(last, name) for name in readers), _train(last)]


def _read(planner: PreferencePlanner, name: str) -> StageEstimate:
    reader = planner
    if name == "pivot":  # it reads as it is trained
        extract = planner.config.extract.model_copy(update={"dtype": planner.config.dtype})
        context = dataclasses.replace(planner.context, config=planner.config.model_copy(update={"extract": extract}))
        if not planner.from_settings:
            vars(context).update(tokenizers=planner.context.tokenizers)
        reader = dataclasses.replace(planner, context=context)
    return extraction_stage(reader, f"preferences: {name} reads", name)


def _train(planner: PreferencePlanner) -> StageEstimate:
    at_once = _AnswersAtOnce(**{f.name: getattr(planner, f.name) for f in dataclasses.fields(planner)})
    checkpointed = checkpoints_activations(planner.config.training)
    process = training_memory(at_once, configured_engine(planner.config), checkpointed)
    return dataclasses.replace(training_stage(planner, "unified", process), stage="preferences: train")
