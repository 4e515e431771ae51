"""How much text a run has: counted from the data by each tokenizer, or taken from the settings (`plan.tokens`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from fusion.config import Config, DataSettings
from fusion.data.easiest import easiest_counts
from fusion.data.encoding import EncodedTexts
from fusion.data.example import Example, count_by_domain
from fusion.models.shared_prefix import MIN_PREFIX
from fusion.plan.flops import Counts
from fusion.stages.context import RunContext


def training_counts(context: RunContext, name: str, from_settings: bool, *, once: bool = False) -> Counts:
    """What this model reads in training; with `once`, in extraction: repeated examples once, and validation too.

    What the texts of a shard begin with is then read once for all of them, where the backend does that.
    """
    share = context.config.data.easiest_fraction or 1.0
    if from_settings:
        train = _examples(context.config, "train")
        return counts_from_settings(
            context.config, train + _examples(context.config, "validation") if once else math.ceil(share * train)
        )
    texts = context.encoded(name)
    if once:
        by_id = {id: number for number, id in enumerate(context.ids)}
        numbers = [by_id[id] for id in sorted(by_id)]  # as they are in shards
        counts = count_tokens(texts, numbers)
        return (
            counts_once(counts, texts, numbers, context.config.extract.shard_size)
            if reads_once(context, name)
            else counts
        )
    every = count_tokens(texts, slice(len(context.train_examples)))
    return every if share == 1 else every.scaled(sum(easiest_counts(context.train_examples, share).values()))


def validation_counts(context: RunContext, from_settings: bool) -> Counts:
    """What the pivot reads of the validation examples, each time that it is read on them."""
    if from_settings:
        return counts_from_settings(context.config, _examples(context.config, "validation"))
    return count_tokens(context.validation_texts, slice(None))


def heldout_counts(context: RunContext, name: str, from_settings: bool) -> Counts:
    """What this model reads of the held-out examples: from their bytes, at the tokens a byte of the training examples."""
    if from_settings:
        return counts_from_settings(context.config, _examples(context.config, "heldout"))
    return _from_bytes(context, name, context.heldout_examples)


def answered_counts(context: RunContext, name: str, from_settings: bool) -> Counts | None:
    """The same of the held-out examples that models answer (`evaluation.exact_match`); None where they answer none."""
    domains = set(context.config.evaluation.exact_match)
    if not domains:
        return None
    if from_settings:
        return counts_from_settings(context.config, _answered_examples(context.config, domains))
    examples = [example for example in context.heldout_examples if example.domain in domains]
    return _from_bytes(context, name, examples) if examples else None


def _from_bytes(context: RunContext, name: str, examples: Sequence[Example]) -> Counts:
    texts = context.encoded(name)
    rows_a_byte = int(texts.rows.sum()) / max(1, sum(len(e.response.encode()) for e in context.extracted_examples))
    sizes = [(len(e.prompt.encode()), len(e.response.encode())) for e in examples]
    return _sum(*np.array([(round((p + r) * rows_a_byte), round(r * rows_a_byte)) for p, r in sizes]).T)


def _answered_examples(config: Config, domains: AbstractSet[str]) -> int:
    """As many as the data sets of these domains may have; all that are held out where that is not known."""
    limits = [data.limit for data in config.data.heldout if data.domain in domains]
    every = _examples(config, "heldout")
    return every if None in limits else min(every, sum(limit or 0 for limit in limits))


def count_tokens(texts: EncodedTexts, which: slice | Sequence[int]) -> Counts:
    """Counts of some of the encoded texts."""
    return _sum(texts.lengths[which], texts.rows[which])


def reads_once(context: RunContext, name: str) -> bool:
    """Return whether a model reads what its texts begin with once for all of them."""
    return context.backend(name).shares_prefixes


def counts_once(counts: Counts, texts: EncodedTexts, numbers: Sequence[int], shard: int) -> Counts:
    """Return counts of these texts where each shard of so many reads once what several of them begin with.

    That is a prompt's beginning of `MIN_PREFIX` tokens or more, see `fusion.models.shared_prefix`. It is too little for models
    whose memory of a text can't be cut at a token (Mamba), which read it with each text.
    """
    shared = squares = 0
    for begin in range(0, len(numbers), shard):
        for group in _alike(texts, numbers[begin : begin + shard]):
            if (prefix := _common_prompt(texts, group)) >= MIN_PREFIX and len(group) > 1:
                shared += (len(group) - 1) * prefix
                # each of the texts leaves out `prefix` tokens that would look at all of it; the prefix looks at itself once
                squares += prefix * int(texts.lengths[group].sum()) - prefix**2
    return dataclasses.replace(
        counts, tokens=counts.tokens - shared, squared_lengths=counts.squared_lengths - squares,
        shared_tokens=shared, shared_squares=squares,
    )  # fmt: skip


def _alike(texts: EncodedTexts, numbers: Sequence[int]) -> Iterable[list[int]]:
    """Group texts that begin with the same `MIN_PREFIX` tokens."""
    found: dict[bytes, list[int]] = {}
    for number in numbers:
        found.setdefault(_ids(texts, number, MIN_PREFIX).tobytes(), []).append(number)
    return found.values()


def _common_prompt(texts: EncodedTexts, numbers: Sequence[int]) -> int:
    """Tokens that the prompts of all these texts begin with; the last token of a prompt is always read."""
    length = int(texts.starts[list(numbers)].min()) - 1
    first = _ids(texts, numbers[0], max(length, 0))
    for number in numbers[1:]:
        if length < MIN_PREFIX:
            break
        differ = np.flatnonzero(_ids(texts, number, length) != first[:length])
        length = int(differ[0]) if len(differ) else length
    return length


def _ids(texts: EncodedTexts, number: int, length: int) -> np.ndarray:
    """The first so many token ids of a text, or fewer where it ends."""
    begin, end = int(texts.ends[number - 1]) if number else 0, int(texts.ends[number])
    return np.asarray(texts.input_ids[begin : min(end, begin + length)])


def counts_from_settings(config: Config, examples: int) -> Counts:
    """Counts of so many examples that all have `plan.tokens` tokens."""
    tokens = min(config.plan.tokens or 0, config.data.max_length)
    rows = min(config.plan.response or tokens, tokens)
    return Counts(examples, examples * tokens, examples * tokens**2, examples * rows, tokens)


def _sum(lengths: np.ndarray, rows: np.ndarray) -> Counts:
    squares = int(np.square(lengths.astype(np.int64)).sum())
    return Counts(len(lengths), int(lengths.sum()), squares, int(rows.sum()), int(lengths.max()))


def _examples(config: Config, part: str) -> int:
    given = {"train": config.plan.examples, "heldout": config.plan.heldout}.get(part)
    if given is not None:
        return given
    data: Sequence[DataSettings] = getattr(config.data, part)
    if unknown := [i for i, settings in enumerate(data) if settings.limit is None]:
        way_out = {"train": "Set plan.examples, or give", "heldout": "Set plan.heldout, or give"}.get(part, "Give")
        raise ValueError(
            f"plan.tokens is given, so data are not read, but data.{part}[{unknown[0]}] ({data[unknown[0]].path}) has no "
            f"limit to count by. {way_out} each data set a limit."
        )
    return sum(settings.limit or 0 for settings in data)


def describe_domains(context: RunContext) -> str:
    """One line with the number of examples in each domain."""
    train = ", ".join(f"{domain} {count}" for domain, count in count_by_domain(context.original_examples).items())
    held = ", ".join(f"{domain} {count}" for domain, count in count_by_domain(context.heldout_examples).items())
    return f"training: {train}; held out: {held}"
