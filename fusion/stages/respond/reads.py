"""What models make of answers to the prompts that all sources answer, and of references: read once and kept by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.cache import remove_claims, write_missing_shards
from fusion.data.encoding import Conversation, encode_batch
from fusion.data.example import Example
from fusion.responses import RANKS, TOO_LONG, PivotFit, ResponseStore, logprobs_per_byte, rank_surprisal_ratios
from fusion.runtime.artifacts import fingerprint
from fusion.runtime.console import bar
from fusion.sources import Source
from fusion.stages.context import RunContext
from fusion.stages.extract import refuse_broken_rows
from fusion.stages.limits.models import context_lengths
from fusion.stages.prompts import prompt_formats
from fusion.stages.respond.answers import (
    answer_store,
    answering_key,
    encoded_prompts,
    first_prompts,
    kept_by_prompt,
    source_request,
)

REFERENCES = "(references)"
"""What stands for the writer of the data's own responses, beside the names of sources."""
READ_AT_ONCE = 256
"""Answers whose rows are in memory together."""


def score_store(context: RunContext, name: str) -> ResponseStore:
    """The folder of what a model makes of the others' answers, and of references: by prompt and writer, for each sample.

    That is nats per byte, and of the pivot both numbers of a `PivotFit`; None for an empty answer.
    """
    key = {
        **answering_key(context, name, encoded_prompts(context, name, first_prompts(context))),
        "answers": {other: answer_store(context, other).key for other in _others(context, name)},
    }
    if name != "pivot" and context.responding.scored_references:
        key |= {"references": fingerprint(context.responding.scored_references)}
    if name == "pivot":
        key |= {"ranks": RANKS, "max_length": _longest_read(context)}
    return kept_by_prompt(context, f"{name}-reads", key, list(first_prompts(context)))


def _others(context: RunContext, name: str) -> list[str]:
    """Sources whose answers a model reads: those of all others, where a check or the choice asks for that."""
    reads = name == "pivot" or name in context.responding.scoring_sources
    return [other for other in context.responding.sources if reads and other != name]


def score_answers(context: RunContext, name: str) -> bool:
    """Let a model read the answers of all others, or the references; whether there was something to do."""
    folder, prompts = score_store(context, name), first_prompts(context)
    if folder.is_complete:
        remove_claims(folder.folder)
        return False
    written: dict[str, Mapping[str, Any]] = {o: answer_store(context, o).read() for o in _others(context, name)}
    if name != "pivot" and (known := context.responding.scored_references):
        written[REFERENCES] = {id: [(known[id], True)] if id in known else [] for id in prompts}
    source = context.backend(name).open(source_request(context, name, RANKS if name == "pivot" else 1))
    with bar(f"answers read by {name}", len(prompts), "prompts", folder.written) as advance:

        def make(number: int) -> list[dict[str, list[Any]]]:
            ids = folder.shard_ids(number)
            texts = [(prompts[id], text) for id in ids for of in written.values() for text, _ended in of[id]]
            found = iter(_scores(context, name, source, texts))
            advance(len(ids))
            return [{other: [next(found) for _ in of[id]] for other, of in written.items()} for id in ids]

        write_missing_shards(folder, make, lambda number: advance(len(folder.shard_ids(number))))
    return True


def _scores(context: RunContext, name: str, source: Source, texts: Sequence[tuple[Example, str]]) -> list[Any]:
    """What a model makes of each text behind its prompt, as `score_store` keeps it."""
    some = [(prompt, text) for prompt, text in texts if text]
    parts = (some[first : first + READ_AT_ONCE] for first in range(0, len(some), READ_AT_ONCE))
    found = iter([score for part in parts for score in _scores_at_once(context, name, source, part)])
    return [next(found) if text else None for _, text in texts]


def _scores_at_once(context: RunContext, name: str, source: Source, texts: Sequence[tuple[Example, str]]) -> list[Any]:
    formats, limit = prompt_formats(context, name), _longest_read(context) if name == "pivot" else None
    conversations = [Conversation(e.messages, text, formats(e, e.messages), e.origin) for e, text in texts]
    encoded = encode_batch(context.tokenizers[name], conversations, limit)
    rows = source.rows(list(encoded))
    refuse_broken_rows(context, name, [example for example, _ in texts], rows)
    sizes = [len(text.encode()) for _, text in texts]
    if name != "pivot":
        return logprobs_per_byte(rows, sizes)
    fits = map(PivotFit, logprobs_per_byte(rows, sizes), rank_surprisal_ratios(rows, sizes))
    return [TOO_LONG if cut else fit for fit, cut in zip(fits, encoded.truncated, strict=True)]


def _longest_read(context: RunContext) -> int:
    """Tokens of prompt and answer that the pivot reads: as many as it would be trained on."""
    reads = context_lengths(context).get("pivot")
    return min([context.config.data.max_length, *([reads.tokens] if reads else [])])
