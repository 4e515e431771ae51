"""How much text a run has: counted from the data by each tokenizer, or taken from the settings (`plan.tokens`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fusion.config import Config, DataSettings
from fusion.data import datasets
from fusion.data.easiest import easiest_counts
from fusion.data.encode import Encoded
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
        return count_tokens(dict(zip(context.ids, texts, strict=True)).values())
    every = count_tokens(texts[: len(context.train_examples)])
    return every if share == 1 else _scaled(every, sum(easiest_counts(context.train_examples, share).values()))


def _scaled(counts: Counts, examples: int) -> Counts:
    """The counts of so many of the examples; which ones is not known yet, so they are as long as all on average."""
    share = examples / counts.examples
    sizes = [round(share * each) for each in (counts.tokens, counts.squared_lengths, counts.rows)]
    return Counts(examples, sizes[0], sizes[1], sizes[2], counts.longest)


def heldout_counts(context: RunContext, name: str, from_settings: bool) -> Counts:
    """What this model reads of the held-out examples: from their bytes, at the tokens a byte of the training examples."""
    if from_settings:
        return counts_from_settings(context.config, _examples(context.config, "heldout"))
    texts = context.encoded(name)
    rows_a_byte = sum(text.num_rows for text in texts) / max(
        1, sum(len(e.response.encode()) for e in context.extracted_examples)
    )
    sizes = [(len(e.prompt.encode()), len(e.response.encode())) for e in context.heldout_examples]
    return _sum([(round((p + r) * rows_a_byte), round(r * rows_a_byte)) for p, r in sizes])


def count_tokens(texts: Iterable[Encoded]) -> Counts:
    """Counts of encoded texts."""
    return _sum([(len(text.input_ids), text.num_rows) for text in texts])


def counts_from_settings(config: Config, examples: int) -> Counts:
    """Counts of so many examples that all have `plan.tokens` tokens."""
    tokens = min(config.plan.tokens or 0, config.data.max_length)
    rows = min(config.plan.response or tokens, tokens)
    return Counts(examples, examples * tokens, examples * tokens**2, examples * rows, tokens)


def _sum(sizes: Sequence[tuple[int, int]]) -> Counts:
    lengths = [tokens for tokens, _rows in sizes]
    squares = sum(tokens**2 for tokens in lengths)
    return Counts(len(sizes), sum(lengths), squares, sum(rows for _tokens, rows in sizes), max(lengths))


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
    train = ", ".join(
        f"{domain} {count}" for domain, count in datasets.count_by_domain(context.original_examples).items()
    )
    held = ", ".join(
        f"{domain} {count}" for domain, count in datasets.count_by_domain(context.heldout_examples).items()
    )
    return f"training: {train}; held out: {held}"
