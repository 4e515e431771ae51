"""What several stages of one run need, each computed once: examples, tokenizers, token ids, fingerprints."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from fusion.cache import Cache
from fusion.config import Config, SourceSettings, baseline_training, fine_tuning
from fusion.data.datasets import DataSet
from fusion.data.easiest import select_easiest
from fusion.data.encoding import EncodedTexts
from fusion.data.example import Example
from fusion.data.folds import assign_folds, prompt_key
from fusion.data.prompt_format import Message
from fusion.responses import (
    PASSES,
    AnyCheck,
    DatasetResponses,
    GeneratedResponses,
    example_from_json,
    placeholder_examples,
    read_eligibility,
)
from fusion.runtime.console import console
from fusion.stages.context.models import RunModels
from fusion.stages.context.step import OrdinaryStep
from fusion.stages.data_sets import RunData, refuse_shared, unique_of
from fusion.stages.encodings import encode_examples, encoded_examples
from fusion.stages.helping import batches
from fusion.stages.limits.overlong import without_overlong
from fusion.stages.mixture_weights import find_shares
from fusion.stages.respond.who import Responding
from fusion.training.validation import validation_arguments
from fusion.weighting import AnyWeighting

CHOSEN = Path("responses", "chosen")
"""Where in a run's folder the examples lie that are learned from, when sources write their responses."""
BATCH = 64
"""Examples whose cached rows are looked at together."""


@dataclass(frozen=True, eq=False)
class RunContext(RunModels, OrdinaryStep):
    """One run of one configuration: its examples, tokenizers, token ids and fingerprints, each computed when first read."""

    data: RunData = field(default=cast(RunData, None))
    """The data sets as they were read; contexts that are made from this one share them."""

    def __post_init__(self) -> None:
        """Begin with data sets that are not read yet."""
        if self.data is None:
            leave_out = self._without_overlong if self.config.data.filter_overlong_prompts else None
            object.__setattr__(self, "data", RunData(self.config.data, leave_out))

    def _with_config(self, config: Config) -> RunContext:
        """A run with another configuration on data of which the same is left out."""
        return RunContext(config, data=RunData(config.data, self.data.leave_out))

    def _without_overlong(self, sets: list[DataSet], heldout: bool) -> list[DataSet]:
        return without_overlong(self.planned, sets, heldout=heldout)

    @functools.cached_property
    def planned(self) -> RunContext:
        """The same run with what sources are to do before they teach taken as done; itself where that is nothing."""
        first = self.has_generated_responses or any(source.fine_tune is not None for source in self.config.sources)
        return replace(self, for_plan=True) if first and not self.for_plan else self

    def fine_tunings(self, source: SourceSettings) -> dict[str, RunContext]:
        """The trainings of a source before it teaches, by name, each as a run of its own."""
        names = self.fine_tuning_names(source)
        alone = self._with_config(fine_tuning(self.config, source)) if names else self
        parts = [(part, len(names)) for part in range(len(names))] if len(names) > 1 else [None]
        return {name: replace(alone, left_out_fold=part) for name, part in zip(names, parts, strict=False)}

    @functools.cached_property
    def original_examples(self) -> list[Example]:
        """The training data as they are, in the order of the configuration."""
        return [example for each in self.data.training for example in each.examples]

    @functools.cached_property
    def baseline_context(self) -> RunContext:
        """The same run as plain fine-tuning does it: on the data's own responses, if there are any, with its own training."""
        own = [data for data in self.config.data.train if data.response is not None]
        training, data = baseline_training(self.config), self.config.data
        if self.has_generated_responses and own:
            data = data.model_copy(update={"responses": DatasetResponses(), "train": own})
        elif training == self.config.training:
            return self
        config = self.config.model_copy(update={"data": data, "training": training})
        plain = RunContext(config, data=self.data) if data is self.config.data else self._with_config(config)
        vars(plain).update(fingerprints=self.fingerprints, tokenizers=self.tokenizers)  # of large models long to read
        return plain

    @functools.cached_property
    def train_examples(self) -> list[Example]:
        """Examples to learn from: the training data as they are, or with responses that sources wrote.

        Raises ValueError where sources are yet to write them.
        """
        how, file = self.config.data.responses, self.config.folder / CHOSEN / "examples.jsonl"
        if self.left_out_fold is not None:
            part, count = self.left_out_fold
            parts = assign_folds(self.original_examples, count)
            return [example for example in self.original_examples if parts[prompt_key(example)] != part]
        if not isinstance(how, GeneratedResponses):
            return self.original_examples
        if self.for_plan:
            return placeholder_examples(self.original_examples, how, self.responding.sources)
        if not file.exists():
            raise ValueError(f"{file} is not there: sources are to write the responses. Run `fusion respond` first.")
        return [example_from_json(json.loads(line)) for line in file.read_text().split("\n") if line]

    @functools.cached_property
    def checks(self) -> list[AnyCheck]:
        """Of each example in `original_examples`, what an answer to it must pass."""
        sets = zip(self.config.data.train, self.data.training, strict=True)
        return [data.check for data, each in sets for _ in each.examples]

    @functools.cached_property
    def responding(self) -> Responding:
        """Who answers the prompts, where sources do."""
        return Responding(self)

    @functools.cached_property
    def eligibility(self) -> dict[str, tuple[float, ...]] | None:
        """By prompt id: of each source in their order, the share of its answers that passed; None where no weighting asks.

        Raises ValueError where sources are yet to answer.
        """
        if not self.config.weighting.required_eligibility:
            return None
        return read_eligibility(self.config.folder / CHOSEN / PASSES, [source.name for source in self.config.sources])

    @functools.cached_property
    def heldout_examples(self) -> list[Example]:
        """Examples to measure on, each once. Raises ValueError where one asks what is also trained on."""
        found = unique_of(self.data.heldout)
        refuse_shared(found, "held-out", self.original_examples, "training")
        return found

    @functools.cached_property
    def validation_examples(self) -> list[Example]:
        """Examples that trainings are watched and weights are chosen on, each once.

        Raises ValueError where one asks what is trained or measured on.
        """
        found = unique_of(self.data.validation)
        refuse_shared(found, "validation", self.original_examples, "training")
        refuse_shared(found, "validation", self.heldout_examples, "held-out")
        return found

    @functools.cached_property
    def extracted_examples(self) -> list[Example]:
        """Examples that models read and leave rows of: those to learn from, then those that weights are chosen on."""
        chosen_on = self.config.reads_sources and self.config.weighting.missing_shares is not None
        return [*self.train_examples, *(self.validation_examples if chosen_on else [])]

    @functools.cached_property
    def ids(self) -> list[str]:
        """Content ids of the examples in `extracted_examples`, in order."""
        return [example.id for example in self.extracted_examples]

    @functools.cached_property
    def training_indices(self) -> list[int]:
        """Numbers of the `train_examples` that trainings see: all, or the easiest, as the pivot's whole cache tells."""
        if self.config.data.easiest_fraction is None:
            return list(range(len(self.train_examples)))
        cache = Cache(self.config.folder / "cache" / "pivot")
        cost = [-cache.rows([example.id]).gold.mean().item() for example in self.train_examples]
        return select_easiest(cost, self.train_examples, self.config.data.easiest_fraction)

    @functools.cached_property
    def weighting(self) -> AnyWeighting:
        """As it is trained with: shares that it leaves open are found here, for which the caches must be complete."""
        given = self.config.weighting
        if given.missing_shares is None or not self.config.reads_sources:
            return given
        caches = {name: Cache(self.config.folder / "cache" / name) for name in self.models}
        of_validation = batches(caches, self.validation_examples, BATCH)
        return given.with_shares(find_shares(of_validation, self.config.alignment, given.missing_shares == "domain"))

    @functools.cached_property
    def training(self) -> dict[str, Any]:
        """TrainingArguments as the user wrote them, with the batch sizes of this number of processes."""
        return self.config.engine.batch_arguments(self.config.training)

    @functools.cache  # noqa: B019  (a context lives as long as its run)
    def encoded(self, name: str) -> EncodedTexts:
        """The examples in `extracted_examples` as tokens of one model, cut at data.max_length; see `encode_example`."""
        texts = encoded_examples(self, name)
        placeholders = self.for_plan and self.has_generated_responses  # as long as answers may get, and nobody's text
        if (cut := int(texts.truncated.sum())) and not placeholders:
            console.print(
                f"  {name}: {cut} of {len(texts)} responses are longer than data.max_length = "
                f"{self.config.data.max_length} and were cut."
            )
        return texts

    @functools.cached_property
    def validation_texts(self) -> EncodedTexts:
        """The validation examples as tokens of the pivot, which reads them while it is trained, cut at data.max_length."""
        return encode_examples(self, "pivot", self.validation_examples)

    @property
    def validation_arguments(self) -> dict[str, Any]:
        """TrainingArguments that say when a training is watched on validation examples; none where it is not."""
        return validation_arguments(self.training) if self.config.data.validation else {}

    @functools.cache  # noqa: B019
    def look_ahead_prompts(self, name: str) -> dict[str, tuple[Message, ...]]:
        """By example id: the messages that this model reads instead of the ordinary ones. Of no example for most models.

        Raises ValueError where an example that occurs twice comes with different ones.
        """
        if not getattr(self.models[name], "look_ahead", False):
            return {}
        found: dict[str, tuple[Message, ...] | None] = {}
        for example in self.extracted_examples:
            if found.setdefault(example.id, example.look_ahead) != example.look_ahead:
                raise ValueError(
                    f"The example that begins {example.prompt[:60]!r} is twice in the data, and sources that look ahead "
                    "are shown different texts with it. Take it out of one of the data sets, for example with where or skip."
                )
        return {id: messages for id, messages in found.items() if messages is not None}
