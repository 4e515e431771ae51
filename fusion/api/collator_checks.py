"""What a `FusionCollator` refuses: caches, tokenizers, a weighting and rows that do not belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.cache import Cache
from fusion.models.loading import tokenizer_identity, vocabulary_size
from fusion.weighting import AnyWeighting


def refuse_other_row(number: int, ids: list[int], own: list[int]) -> None:
    """Raise ValueError for a row that is not the collator's: by number alone an evaluation would read what is trained on."""
    if ids == own:
        return
    if ids and ids == own[: len(ids)]:
        raise ValueError(
            f"The row with number {number} has the first {len(ids)} tokens of {len(own)}: the trainer has cut it. Texts are "
            'encoded and cut already: SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}) leaves them as they are; for '
            f"shorter ones give FusionCollator max_length={len(ids)}, in place of the trainer's max_length."
        )
    raise ValueError(
        f"The row with number {number} is not of this collator's dataset(), but of another one's. A trainer has one "
        "collator: make it of the examples for training and for evaluation together, and give each the rows of its "
        "dataset() that select() takes out."
    )


def refuse_what_runs_know(weighting: AnyWeighting) -> None:
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


def refuse_strangers(caches: Any, tokenizers: Any) -> None:
    """Raise ValueError where there is not one cache and one tokenizer by the name of each source."""
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


def refuse_other_tokens(name: str, cache: Cache, tokenizer: Any) -> None:
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


def refuse_absent(name: str, cache: Cache, ids: Sequence[str]) -> None:
    """Raise ValueError where a cache has no rows of an example."""
    known = set(cache.ids)
    if absent := [number for number, id in enumerate(ids) if id not in known]:
        raise ValueError(
            f"The cache of {name} ({cache.folder}) lacks {len(absent)} of {len(ids)} examples, the first is number "
            f"{absent[0]}. Extract from the very same examples: prompt, response and template count."
        )
