"""The stage in which sources answer the prompts of the training data, and what is learned from is chosen.

responses/<source>           its answers, in shards
responses/<source>-reads     how likely it finds the others' answers, or the references, where a check asks for that
responses/pivot-reads        how well all answers fit the pivot, where the choice asks for that
responses/chosen             the examples that are learned from
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

from fusion.cache import remove_claims, write_missing_shards
from fusion.core.text_files import read_object
from fusion.data.chat_tokens import Prompt
from fusion.data.encoding import Conversation, encode_batch, encode_prompt_batch
from fusion.data.example import Example
from fusion.models.generate import Completion, GenerationSettings
from fusion.responses import (
    PASSES,
    RANKS,
    TOO_LONG,
    PivotFit,
    PromptResponses,
    Response,
    ResponseStore,
    choose_examples,
    count_responses,
    example_to_json,
    logprobs_per_byte,
    passes_to_jsonl,
    rank_surprisal_ratios,
)
from fusion.responses.response_store import store_key
from fusion.runtime import distributed
from fusion.runtime.artifacts import claim_artifact, fingerprint, mark_complete, write_text
from fusion.runtime.console import bar
from fusion.runtime.distributed import device
from fusion.runtime.locks import exclusive
from fusion.runtime.run_file import ResponseCounts
from fusion.sources import Source, SourceRequest
from fusion.stages.context import CHOSEN, RunContext
from fusion.stages.extract import refuse_broken_rows
from fusion.stages.limits.models import context_lengths
from fusion.stages.prompts import prompt_format, prompt_formats

REDO = "fusion respond"
REFERENCES = "(references)"
"""What stands for the writer of the data's own responses, beside the names of sources."""
READ_AT_ONCE = 256
"""Answers whose rows are in memory together."""


def prepare_checks(context: RunContext) -> None:
    """Raise an error, with the way out, where a check could not judge any answer: before sources write them."""
    for data in context.config.data.train:
        data.check.prepare()


def answer_store(context: RunContext, name: str) -> ResponseStore:
    """The folder of a source's answers: by prompt, for each sample its text and whether it ended."""
    return _response_store(
        context, name, {**_model(context, name), "decoding": asdict(context.response_settings.decoding)}
    )


def generate_answers(context: RunContext, name: str) -> bool:
    """Let a source answer all prompts, together with whatever other processes are at it; whether there was something to do."""
    folder, decoding = answer_store(context, name), context.response_settings.decoding
    return write_answers(
        context, name, folder, encoded_prompts(context, name, _prompts(context)), decoding, _text_and_end
    )


def _text_and_end(prompt: Prompt, completion: Completion) -> list[Any]:
    return [completion.text.removeprefix(prompt.lead), completion.ended]


def write_answers(
    context: RunContext,
    name: str,
    folder: ResponseStore,
    prompts: Mapping[str, Prompt],
    decoding: GenerationSettings,
    kept: Callable[[Prompt, Completion], Any],
) -> bool:
    """Let a model answer prompts into a folder, of each answer what `kept` returns; whether there was something to do."""
    if folder.is_complete:
        remove_claims(folder.folder)
        return False
    writer = context.backend(name).open_generator(_source_request(context, name))
    with bar(f"answers of {name}", len(prompts), "prompts") as advance:

        def make(number: int) -> list[Any]:
            asked = [prompts[id] for id in folder.shard_ids(number)]
            found = writer.generate([prompt.ids for prompt in asked], decoding, advance)
            return [[kept(prompt, one) for one in samples] for prompt, samples in zip(asked, found, strict=True)]

        write_missing_shards(folder, make, lambda number: advance(len(folder.shard_ids(number))))
    return True


def encoded_prompts(context: RunContext, name: str, prompts: Mapping[str, Example]) -> dict[str, Prompt]:
    """What a model answers, by what is asked. Raises ValueError as `encode_prompt`, with the row."""
    formats = prompt_formats(context, name)
    conversations = [Conversation(e.messages, "", formats(e, e.messages), e.origin) for e in prompts.values()]
    return dict(zip(prompts, encode_prompt_batch(context.tokenizers[name], conversations), strict=True))


def score_store(context: RunContext, name: str) -> ResponseStore:
    """The folder of what a model makes of the others' answers, and of references: by prompt and writer, for each sample.

    That is nats per byte, and of the pivot both numbers of a `PivotFit`; None for an empty answer.
    """
    key = {
        **_model(context, name),
        "answers": {other: answer_store(context, other).key for other in _others(context, name)},
    }
    if name != "pivot" and context.scored_references:
        key |= {"references": fingerprint(context.scored_references)}
    if name == "pivot":
        key |= {"ranks": RANKS, "max_length": _longest_read(context)}
    return _response_store(context, f"{name}-reads", key)


def _others(context: RunContext, name: str) -> list[str]:
    """Sources whose answers a model reads: those of all others, where a check or the choice asks for that."""
    reads = name == "pivot" or name in context.scoring_sources
    return [other for other in context.responding_sources if reads and other != name]


def score_answers(context: RunContext, name: str) -> bool:
    """Let a model read the answers of all others, or the references; whether there was something to do."""
    folder, prompts = score_store(context, name), _prompts(context)
    if folder.is_complete:
        remove_claims(folder.folder)
        return False
    written: dict[str, Mapping[str, Any]] = {o: answer_store(context, o).read() for o in _others(context, name)}
    if name != "pivot" and (known := context.scored_references):
        written[REFERENCES] = {id: [(known[id], True)] if id in known else [] for id in prompts}
    source = context.backend(name).open(_source_request(context, name, RANKS if name == "pivot" else 1))
    with bar(f"answers read by {name}", len(prompts), "prompts") as advance:

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


def choose_responses(context: RunContext) -> bool:
    """Check all answers and keep the examples to learn from; whether there was something to do.

    Raises ValueError where no example is left, or a check lacks what it compares with.
    """
    folder, checks = context.config.folder / CHOSEN, _check_keys(context)
    key = {
        "answers": {name: answer_store(context, name).key for name in context.responding_sources},
        "reads": {name: score_store(context, name).key for name in context.answer_readers},
        "responses": context.response_settings.model_dump(),
        "checks": checks,
        "examples": fingerprint({"ids": [_judged_by(example) for example in context.original_examples]}),
    }
    with distributed.main_process_first(), _choosing(context):
        if not (folder / "done.json").exists():  # nothing was left to learn from: another choice is no contradiction
            (folder / "key.json").unlink(missing_ok=True)
        if claim_artifact(folder, key, REDO):
            return False
        questions = judged_responses(context)
        if checks != _check_keys(context):
            raise ValueError("A file of a check was changed while it was judging answers. Run `fusion respond` again.")
        found = choose_examples(questions, context.response_settings, context.responding_sources)
        how_well = count_responses(questions, found, context.responding_sources)
        if not found:
            said = ", ".join(f"{c.passed} of {c.answers} answers of {c.source} in {c.domain}" for c in how_well)
            raise ValueError(
                f"There is nothing to learn from: {said} passed. See data.train[...].check and responses.fallback."
            )
        lines = [json.dumps(example_to_json(example, source)) for example, source in found]
        write_text(folder / "examples.jsonl", "".join(f"{line}\n" for line in lines))
        write_text(
            folder / PASSES, passes_to_jsonl(questions, context.responding_sources, context.response_settings.samples)
        )
        mark_complete(folder, counts=[asdict(each) for each in how_well])
    return True


def _check_keys(context: RunContext) -> list[dict[str, Any]]:
    return [data.check.key() for data in context.config.data.train]


def _judged_by(example: Example) -> list[Any]:
    """What an example brings for its check."""
    return [example.id, example.domain, example.tests, *([example.columns] if example.columns else [])]


def _choosing(context: RunContext) -> AbstractContextManager[None]:
    """Keep other starts of `fusion respond`, which may share the answering, from choosing at the same time."""
    if not distributed.is_main_process():
        return nullcontext()
    folder = context.config.folder / CHOSEN
    return exclusive(folder.with_name(f"{folder.name}.lock"), f"The choice of responses in {folder}", wait=True)


def response_counts(context: RunContext) -> list[ResponseCounts]:
    """How every source did in every domain, once the examples are chosen."""
    return [ResponseCounts(**each) for each in read_object(context.config.folder / CHOSEN / "done.json")["counts"]]


def judged_responses(context: RunContext) -> list[PromptResponses]:
    """Every prompt of the data with its answers, and which of them pass the check of its data set."""
    written = {name: answer_store(context, name).read() for name in context.responding_sources}
    read_by = {name: score_store(context, name).read() for name in context.answer_readers}
    found = []
    with bar("answers checked", len(context.original_examples), "prompts") as advance:
        for example, check in zip(context.original_examples, context.checks, strict=True):
            responses = _responses(context, example.prompt_id, written, read_by)
            found.append(PromptResponses(example, responses, check(example, responses)))
            advance(1)
    return found


def _responses(
    context: RunContext, id: str, written: Mapping[str, Mapping[str, Any]], read_by: Mapping[str, Mapping[str, Any]]
) -> list[Response]:
    """The answers to a prompt that may be learned from at all."""
    whole, pivot = context.response_settings.truncated == "keep", read_by.get("pivot")
    found = []
    for name, of in written.items():
        for number, (text, ended) in enumerate(of[id]):
            if text.strip() and (ended or whole):
                others = [read_by[reader][id][name][number] for reader in context.scoring_sources if reader != name]
                fit = PivotFit(*pivot[id][name][number]) if pivot else None
                other = sum(others) / len(others) if others else None
                reference = read_by[name][id][REFERENCES][0] if id in context.scored_references else None
                found.append(Response(name, text, ended, other, reference, fit))
    return found


def _model(context: RunContext, name: str) -> dict[str, Any]:
    return answering_key(context, name, encoded_prompts(context, name, _prompts(context)))


def answering_key(context: RunContext, name: str, prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """All that a model's answers to prompts depend on, besides how they are drawn."""
    return {
        "model": context.fingerprints[name],
        "prompts": prompt_format(context, name).key()
        | {"ids": fingerprint({id: prompt.ids for id, prompt in prompts.items()})},
        "dtype": context.config.extract.resolved_dtype,
        "backend": context.backend(name).identity(),
    }


def _response_store(context: RunContext, name: str, key: dict[str, Any]) -> ResponseStore:
    ids, size = list(_prompts(context)), context.config.extract.shard_size
    folder = context.store.artifact_folder("responses", name, store_key(key, ids, size))
    return ResponseStore(folder, key, ids, shard_size=size, redo=REDO)


def _prompts(context: RunContext) -> dict[str, Example]:
    """One example of each prompt, by what is asked."""
    return {example.prompt_id: example for example in reversed(context.original_examples)}


def _source_request(context: RunContext, name: str, k: int = 1) -> SourceRequest:
    extract = context.config.extract
    return SourceRequest(
        context.models[name].ref, context.tokenizers[name], k, extract.resolved_dtype, device(), extract.batch_tokens,
        prompt_format=prompt_format(context, name),
    )  # fmt: skip
