"""One round of a run as a run of its own: the same stages, on texts that the pivot wrote."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from fusion.config import ModelSettings, Rounds, SourceSettings, round_config
from fusion.core.example import ExampleInfo
from fusion.data.encode import truncate_rows
from fusion.data.encoding import EncodedTexts
from fusion.data.example import Example
from fusion.models import loading
from fusion.objectives import AnyObjective
from fusion.responses import PASSES, AnyCheck, read_eligibility
from fusion.runtime.artifacts import artifact_key, fingerprint
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.rounds.gap import pass_gaps
from fusion.stages.rounds.kept import REDO, round_folder
from fusion.stages.rounds.later_step import LaterStep
from fusion.stages.rounds.learn import WEAKER, rollout_data, weaker_relatives
from fusion.stages.rounds.prompts import count_prompts, draw_prompts, gap_counts, proportional_counts
from fusion.stages.rounds.stop import stop_ids
from fusion.stages.rounds.texts import WrittenText, encode_for_source, encode_written, read_texts
from fusion.training import TrainingSource
from fusion.training.rollouts import RolloutData
from fusion.weighting import AnyWeighting

if TYPE_CHECKING:
    from transformers import TrainerCallback


@dataclass(frozen=True, eq=False)
class RoundContext(LaterStep):
    """A round: its pivot is the model that the round before left, its examples are what that model wrote."""

    number: int = 1
    """1 for the first."""
    reader: str | None = None
    """The source whose reading it is, which reads only texts that it may teach; None for everybody else."""
    with_replay: bool = False
    """Whether examples of the first training stand behind the texts that the pivot wrote; sources have not read them here."""

    @staticmethod
    def of(run: RunContext, number: int, start: Path) -> RoundContext:
        """Round `number` of a run, which begins with the model in the folder `start`."""
        rounds = rounds_of(run)
        return RoundContext(round_config(run.config, rounds, number, start), data=run.data, run=run, number=number)

    @functools.cached_property
    def learning(self) -> RoundContext:
        """The same round as it is trained: with the examples that are replayed."""
        return dataclasses.replace(self, with_replay=True)

    @property
    def rounds(self) -> Rounds:
        """Settings of all rounds."""
        return rounds_of(self.run)

    @functools.cached_property
    def asked(self) -> list[int]:
        """Numbers of the run's training examples whose prompts the pivot answers in this round."""
        examples, numbers = self.run.original_examples, range(1, self.number + 1)
        return draw_prompts(examples, [prompt_counts(self.run, n) for n in numbers], self.run.config.seed)

    @functools.cached_property
    @override
    def original_examples(self) -> list[Example]:
        return [self.run.original_examples[number] for number in self.asked]

    @functools.cached_property
    @override
    def checks(self) -> list[AnyCheck]:
        return [self.run.checks[number] for number in self.asked]

    @functools.cached_property
    def judged(self) -> list[bool]:
        """Of each prompt, whether its check tells right answers from wrong ones."""
        return [self.run.responding.judged[number] for number in self.asked]

    @functools.cached_property
    def chosen_responses(self) -> dict[str, str]:
        """By prompt id, the first response that the first training learned from."""
        return {example.prompt_id: example.response for example in reversed(self.run.train_examples)}

    @functools.cached_property
    def written(self) -> list[WrittenText]:
        """The texts that the pivot wrote, in the order of the prompts."""
        return read_texts(self)

    def may_teach(self, name: str) -> list[bool]:
        """Return, for each text, whether the weighting lets a source count there at all, whatever its rows say."""
        infos = [self._info(text.example) for text in self.written]
        names = [source.name for source in self.config.sources]
        priors = self.weighting.source_priors(infos, len(names))
        return [True] * len(infos) if priors is None else (priors[names.index(name)] > 0).tolist()

    def _info(self, example: Example) -> ExampleInfo:
        known = None if self.eligibility is None else self.eligibility.get(example.prompt_id)
        return ExampleInfo(example.domain, example.id, eligibility=known)

    @functools.cached_property
    def read(self) -> list[WrittenText]:
        """The texts that are read: all, or those that the source `reader` may teach; the first where it may teach none."""
        if self.reader is None:
            return self.written
        pairs = zip(self.written, self.may_teach(self.reader), strict=True)
        return [text for text, may in pairs if may] or self.written[:1]

    @functools.cached_property
    def replayed(self) -> list[int]:
        """Numbers of the run's training examples that are learned from again, drawn anew for each round."""
        known = self.run.training_indices
        count = min(len(known), round(self.rounds.replay * len(self.written)))
        ranked = sorted(known, key=lambda at: fingerprint({"replay": [self.run.config.seed, self.number, at]}))
        return sorted(ranked[:count])

    @functools.cached_property
    @override
    def train_examples(self) -> list[Example]:
        written = [text.example for text in self.read]
        return [*written, *(self.run.train_examples[at] for at in self.replayed)] if self.with_replay else written

    @functools.cache  # noqa: B019  (a context lives as long as its run)
    @override
    def encoded(self, name: str) -> EncodedTexts:
        if name != "pivot":
            return EncodedTexts.from_texts(encode_for_source(self, name, self.read))
        limit = self.config.data.max_length
        own = [truncate_rows(each, limit - each.start) for each in encode_written(self)]
        replayed = self.run.encoded("pivot").select(self.replayed) if self.with_replay else []
        return EncodedTexts.from_texts([*own, *replayed])

    @functools.cached_property
    @override
    def pivot_stop_ids(self) -> tuple[int, ...]:
        # of the pivot that wrote, also where another one reads (`reference`): what is compared has the same events
        return stop_ids(self, round_folder(self.run.config, self.number - 1) / "model")

    @override
    def objectives(self, *, learns_from_sources: bool) -> Sequence[AnyObjective]:
        return self.rounds.objectives

    @override
    def rollout_data(self, sources: Sequence[TrainingSource], objectives: Sequence[AnyObjective]) -> RolloutData:
        return rollout_data(self, sources, objectives)

    @property
    @override
    def redo(self) -> str:
        return REDO

    @property
    @override
    def training_callbacks(self) -> list[TrainerCallback]:
        from fusion.training.rollouts.early_stop import StopAtClipRatio  # with it comes Trainer, which takes seconds

        limit = self.rounds.max_clip_ratio
        return [] if limit is None else [StopAtClipRatio(limit)]

    @property
    @override
    def training_key(self) -> dict[str, Any]:
        caches = ["pivot", *(name + WEAKER for name in weaker_relatives(self.config, self.rounds))]
        read = [artifact_key(self.config.folder / "cache" / name) for name in caches]
        how = {
            "read": read,
            "rewards": [text.reward for text in self.written],
            "scaled": self.rounds.scale_rewards,
            "max_clip_ratio": self.rounds.max_clip_ratio,
        }
        if len(self.pivot_stop_ids) > 1:
            how["stop_ids"] = list(self.pivot_stop_ids)
        return {"rollouts": fingerprint({"passed": [text.passed for text in self.written], **how})}

    @functools.cached_property
    @override
    def weighting(self) -> AnyWeighting:
        return self.run.weighting if self.rounds.weighting is None else self.rounds.weighting

    @functools.cached_property
    @override
    def eligibility(self) -> dict[str, tuple[float, ...]] | None:
        if not self.weighting.required_eligibility:
            return None
        names = [source.name for source in self.config.sources]
        return read_eligibility(self.run.config.folder / CHOSEN / PASSES, names)

    @functools.cached_property
    @override
    def models(self) -> dict[str, ModelSettings]:
        if self.rounds.learn_from == "pairwise":
            return {"pivot": self.config.pivot, **{source.name: source for source in self.config.sources}}
        return {**self.run.models, "pivot": self.config.pivot}

    @functools.cached_property
    def reads_alone(self) -> dict[str, SourceSettings]:
        """Models that read in a source's place, whatever the run made of it: none, but where its weaker relative does."""
        return {}

    @override
    def fine_tunings(self, source: SourceSettings) -> dict[str, RunContext]:
        if source.name in self.reads_alone or self.rounds.learn_from == "pairwise":
            return {}
        return self.run.fine_tunings(source)

    @override
    def fold_models(self, source: SourceSettings) -> list[SourceSettings]:
        if source.name in self.reads_alone:
            return [self.reads_alone[source.name]]
        return [source] if self.rounds.learn_from == "pairwise" else self.run.fold_models(source)

    @functools.cached_property
    @override
    def fingerprints(self) -> dict[str, str]:
        known = self.run.fingerprints if self.rounds.learn_from == "sources" else {}
        new = {name: model for name, model in self.models.items() if name == "pivot" or name not in known}
        return known | {name: loading.model_fingerprint(model.ref) for name, model in new.items()}

    @functools.cached_property
    @override
    def tokenizers(self) -> dict[str, Any]:
        if self.rounds.learn_from == "pairwise":
            return dict.fromkeys(self.models, self.run.tokenizers["pivot"])
        return self.run.tokenizers


def prompt_counts(run: RunContext, number: int) -> dict[str, int]:
    """Return how many prompts of each domain are answered in round `number`."""
    rounds, sizes = rounds_of(run), count_prompts(run.original_examples)
    gaps = pass_gaps(run, number) if rounds.domain_shares == "gap" else None
    if gaps is None:
        return proportional_counts(sizes, rounds.prompts)
    return gap_counts(sizes, rounds.prompts, gaps, rounds.gap_floor)


def rounds_of(run: RunContext) -> Rounds:
    """Return the settings of a run's rounds. Raises TypeError where it has none."""
    if run.config.rounds is None:
        raise TypeError(f"run {run.config.name} has no rounds")
    return run.config.rounds
