"""Texts and the cached rows of their sources to batches, for any training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from fusion.alignment import Alignment
from fusion.api.collator_checks import (
    refuse_absent,
    refuse_other_row,
    refuse_other_tokens,
    refuse_strangers,
    refuse_what_runs_know,
)
from fusion.api.encoding import day_of, encode_examples, prompt_format_of, refuse_unreadable
from fusion.api.examples import AnyExamples, read_examples
from fusion.api.given import cache_of, weighting_of
from fusion.api.rows import vocabulary_map
from fusion.cache import Cache
from fusion.config import ModelSettings
from fusion.models.loading import load_tokenizer
from fusion.training import TrainingCollator, TrainingSource
from fusion.weighting import AnyWeighting, Sum

IGNORE_INDEX = -100
"""Label of a position that is not scored, as in torch and transformers."""


class FusionCollator:
    """A data collator whose batches also hold what the pivot's sources say of these texts.

        collator = fusion.FusionCollator(tokenizer, examples, {"coder": cache}, {"coder": "Qwen/Qwen2.5-Coder-0.5B"})
        loader = torch.utils.data.DataLoader(collator.dataset(), batch_size=8, collate_fn=collator)

    A batch has `input_ids`, `attention_mask` and `labels` (-100 at prompts and padding) of shape [B, T], and `targets`, which
    `FusionLoss` and `FusionMixin` take out. It may be pickled: several workers read the caches side by side.
    """

    def __init__(
        self,
        tokenizer: Any,
        examples: AnyExamples,
        caches: Mapping[str, Cache | str | Path],
        tokenizers: Mapping[str, Any],
        *,
        weighting: AnyWeighting | Mapping[str, Any] | None = None,
        alignment: Alignment = "prefix",
        vocabulary_map_kind: str = "first_piece",
        max_length: int | None = 1024,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        answer_prefix: str | None = None,
    ):
        """Encode the examples for the pivot and map each source's tokens to its own.

        Args:
            tokenizer: The pivot's: an object of transformers, or the folder or hub id of one.
            examples: What `read_examples` takes; the very examples that the caches hold.
            caches: By name of the source: its rows, from `extract` or a run, or the folder of these.
            tokenizers: By name of the source: its tokenizer, in either form.
            weighting: How much each source counts at each row, such as `fusion.weighting.GoldPosterior()`, or its settings as
                in a configuration. If not given, 1 everywhere (`sum`, the default of a run too), which did harm to tiny models:
                docs/which_objective.md.
            alignment: `prefix`, `truncate` or `dtw`: which rows are compared; see `align`.
            vocabulary_map_kind: `first_piece` or `exact`: how a source's tokens become the pivot's; see `vocabulary_map`.
            max_length: Tokens at which prompt and response together are cut; it is said how many were. None never cuts.
            chat_template_kwargs: Variables for the pivot's chat template, such as `{"enable_thinking": False}`. A date in it is
                that of the latest cache, today where caches keep none.
            answer_prefix: Text between the pivot's generation prompt, or a plain prompt, and every answer. If not given, what
                the template itself writes there.

        Raises:
            ValueError: Where the names differ, a cache lacks an example or has ids of another tokenizer, the weighting needs
                the pivot's own cache, validation text, the step or to know who answered rightly, or an example cannot be read.
        """
        pivot = _tokenizer(tokenizer)
        found = read_examples(examples)
        refuse_strangers(caches, tokenizers)
        own = {name: _tokenizer(each) for name, each in tokenizers.items()}
        opened = {name: cache_of(cache, name) for name, cache in caches.items()}
        for name, cache in opened.items():
            refuse_absent(name, cache, [example.id for example in found])
            refuse_other_tokens(name, cache, own[name])
        chosen = Sum() if weighting is None else weighting_of(weighting)
        refuse_what_runs_know(chosen)
        if alignment not in get_args(Alignment):
            raise ValueError(f"alignment is {alignment!r}; choose one of {', '.join(get_args(Alignment))}.")
        days = [day for cache in opened.values() if (day := day_of(cache.key))]
        form = prompt_format_of(pivot, chat_template_kwargs, answer_prefix, max(days, default=None))
        self.texts = encode_examples(pivot, found, max_length, form)
        maps = {name: vocabulary_map(each, pivot, kind=vocabulary_map_kind) for name, each in own.items()}
        sources = [TrainingSource(name, cache, maps[name]) for name, cache in opened.items()]
        self._tokenizer, pad_id = pivot, pivot.pad_token_id or 0
        self._batches = TrainingCollator(found, self.texts, sources, chosen, alignment=alignment, pad_id=pad_id)

    def __call__(self, features: Sequence[int | Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch of examples, given by their numbers or as rows of `dataset()`.

        Returns `input_ids`, `attention_mask` and `labels`, each [B, T], and `targets` for `FusionLoss` or `FusionMixin`. Raises
        ValueError for a row of another collator's dataset.
        """
        numbers = [self._number(feature) for feature in features]
        batch = self._batches(numbers)
        # the same at every step: weightings that change are refused
        targets: Any = self._batches.at_step(batch["targets"], 0)
        labels = torch.full_like(batch["input_ids"], IGNORE_INDEX)
        predicted = targets.hidden_index + 1  # the state at one position predicts the token at the next
        labels.view(-1)[predicted] = targets.positions.token
        return {**batch, "targets": targets, "labels": labels}

    def _number(self, feature: int | Mapping[str, Any]) -> int:
        if isinstance(feature, int):
            return feature
        if "number" not in feature:
            raise ValueError(
                f"The collator takes rows of its dataset(), and this one has columns {', '.join(map(str, feature))}. Give the "
                "trainer collator.dataset(), or rows of it that select() takes out."
            )
        number, ids = int(feature["number"]), feature.get("input_ids")
        if ids is not None:
            own = self.texts[number].input_ids if number < len(self) else []
            refuse_other_row(number, [int(id) for id in ids], own)
        return number

    def refuse_unreadable(self, name: str, config: Any) -> None:
        """Raise ValueError for texts that a model of this configuration cannot read; `name` is what to call it."""
        refuse_unreadable(name, config, self._tokenizer, self._batches.examples, self.texts, pads=True)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.texts)

    def dataset(self) -> Any:
        """Return a dataset of `datasets` with the rows that this collator takes: `number`, `input_ids`, `completion_mask`.

        The last two are for trainers that look at lengths, or would encode texts themselves where they see none.
        """
        from datasets import Dataset

        texts = list(self.texts)
        masks = [[0] * text.start + [1] * text.num_rows for text in texts]
        ids = [text.input_ids for text in texts]
        return Dataset.from_dict({"number": list(range(len(texts))), "input_ids": ids, "completion_mask": masks})


def _tokenizer(given: Any) -> Any:
    return load_tokenizer(ModelSettings(path=str(given)).ref) if isinstance(given, (str, Path)) else given
