"""Texts and the cached rows of their sources to batches, for any training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from fusion.alignment import Alignment
from fusion.api.examples import AnyExamples, read_examples
from fusion.api.given import cache_of, weighting_of
from fusion.api.reading import encode_examples
from fusion.api.rows import vocabulary_map
from fusion.cache import Cache
from fusion.config import ModelSettings
from fusion.models.loading import load_tokenizer, tokenizer_identity, vocabulary_size
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

        Raises:
            ValueError: Where the names differ, a cache lacks an example or has ids of another tokenizer, the weighting needs
                the pivot's own cache, validation text, the step or to know who answered rightly, or an example cannot be read.
        """
        pivot = _tokenizer(tokenizer)
        found = read_examples(examples)
        _refuse_strangers(caches, tokenizers)
        own = {name: _tokenizer(each) for name, each in tokenizers.items()}
        opened = {name: cache_of(cache, name) for name, cache in caches.items()}
        for name, cache in opened.items():
            _refuse_absent(name, cache, [example.id for example in found])
            _refuse_other_tokens(name, cache, own[name])
        chosen = Sum() if weighting is None else weighting_of(weighting)
        _refuse_what_runs_know(chosen)
        if alignment not in get_args(Alignment):
            raise ValueError(f"alignment is {alignment!r}; choose one of {', '.join(get_args(Alignment))}.")
        self.texts = encode_examples(pivot, found, max_length)
        maps = {name: vocabulary_map(each, pivot, kind=vocabulary_map_kind) for name, each in own.items()}
        sources = [TrainingSource(name, cache, maps[name]) for name, cache in opened.items()]
        pad_id = pivot.pad_token_id or 0
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
        # numbers alone would be read as examples of this collator, so that an evaluation measured what is trained on
        if ids is not None and (number >= len(self) or [int(id) for id in ids] != self.texts[number].input_ids):
            raise ValueError(
                f"The row with number {number} is not of this collator's dataset(), but of another one's. A trainer has one "
                "collator: make it of the examples for training and for evaluation together, and give each the rows of its "
                "dataset() that select() takes out."
            )
        return number

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


def _refuse_what_runs_know(weighting: AnyWeighting) -> None:
    """Raise ValueError for a weighting that reads more than rows."""
    if weighting.required_pivot_fields:
        raise ValueError(
            f"The weighting {weighting.kind} reads what the pivot said before training; fusion.run has that."
        )
    if weighting.required_eligibility:
        raise ValueError(
            f"The weighting {weighting.kind} asks which sources answered each prompt rightly; fusion.run has that."
        )
    if weighting.missing_shares:
        raise ValueError(
            f"The weighting {weighting.kind} finds its shares on validation text; fusion.run has that. Here give it shares, "
            'one for each source in their order: shares={"*": [0.5, 0.3]}.'
        )
    if weighting.changes_with_steps:
        raise ValueError(f"The weighting {weighting.kind} draws anew at each step of a training; fusion.run has that.")


def _refuse_strangers(caches: Any, tokenizers: Any) -> None:
    for what, given in (("caches", caches), ("tokenizers", tokenizers)):
        if not isinstance(given, Mapping):
            raise ValueError(
                f"{what} is a {type(given).__name__}; give one by the name of each source: {{'coder': ...}}."
            )
    if caches.keys() != tokenizers.keys():
        raise ValueError(
            f"caches are of {', '.join(caches) or 'no source'}, tokenizers of {', '.join(tokenizers) or 'no source'}; give "
            "both for each source, under the same name."
        )


def _refuse_other_tokens(name: str, cache: Cache, tokenizer: Any) -> None:
    """Raise ValueError where a tokenizer cannot be that of the model that a cache is of: ids would be read as other tokens."""
    written, size = cache.key.get("vocabulary"), vocabulary_size(tokenizer)
    if written is not None and written != size:
        raise ValueError(
            f"The cache of {name} ({cache.folder}) holds ids of a tokenizer with {written:,} tokens, and tokenizers[{name!r}] "
            f"has {size:,}. Give the tokenizer of the source that the cache is of."
        )
    own, given = cache.tokenizer, tokenizer_identity(tokenizer)
    if own and own["vocabulary"] != given["vocabulary"]:
        raise ValueError(
            f"The cache of {name} ({cache.folder}) holds ids of the tokenizer {own['name']}, and tokenizers[{name!r}], "
            f"{given['name']}, has other tokens under the same ids. Give the tokenizer of the source that the cache is of."
        )


def _refuse_absent(name: str, cache: Cache, ids: Sequence[str]) -> None:
    known = set(cache.ids)
    if absent := [number for number, id in enumerate(ids) if id not in known]:
        raise ValueError(
            f"The cache of {name} ({cache.folder}) lacks {len(absent)} of {len(ids)} examples, the first is number "
            f"{absent[0]}. Extract from the very same examples: prompt, response and template count."
        )
