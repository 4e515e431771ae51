"""How much text a run has: counted from the data by each tokenizer, or taken from the settings (`plan.tokens`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fusion.config import Config, DataSettings
from fusion.data.easiest import easiest_counts
from fusion.data.encoding import EncodedTexts
from fusion.data.example import count_by_domain
from fusion.plan.flops import Counts
from fusion.stages.context import RunContext


def training_counts(context: RunContext, name: str, from_settings: bool, *, once: bool = False) -> Counts:
    """What this model reads in training; with `once`, in extraction: repeated examples once, and validation too."""
    share = context.config.data.easiest_fraction or 1.0
    if from_settings:
        train = _examples(context.config, "train")
        return counts_from_settings(
            context.config, train + _examples(context.config, "validation") if once else math.ceil(share * train)
        )
    texts = context.encoded(name)
    if once:
        return count_tokens(texts, list({id: number for number, id in enumerate(context.ids)}.values()))
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
    texts = context.encoded(name)
    rows_a_byte = int(texts.rows.sum()) / max(1, sum(len(e.response.encode()) for e in context.extracted_examples))
    sizes = [(len(e.prompt.encode()), len(e.response.encode())) for e in context.heldout_examples]
    return _sum(*np.array([(round((p + r) * rows_a_byte), round(r * rows_a_byte)) for p, r in sizes]).T)


def count_tokens(texts: EncodedTexts, which: slice | Sequence[int]) -> Counts:
    """Counts of some of the encoded texts."""
    return _sum(texts.lengths[which], texts.rows[which])


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
