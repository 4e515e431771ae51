"""Answers of sources to the prompts of the training data, written once and kept by prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fusion.cache import remove_claims, write_missing_shards
from fusion.data.chat_tokens import Prompt
from fusion.data.encoding import Conversation, encode_prompt_batch
from fusion.data.example import Example
from fusion.models.generate import Completion, GenerationSettings
from fusion.responses import ResponseStore
from fusion.responses.response_store import store_key
from fusion.runtime.artifacts import fingerprint, refuse_other_keys
from fusion.runtime.console import bar
from fusion.runtime.distributed import device
from fusion.sources import SourceRequest
from fusion.stages.context import RunContext
from fusion.stages.prompts import prompt_format, prompt_formats

REDO = "fusion respond"


def answer_store(context: RunContext, name: str) -> ResponseStore:
    """The folder of a source's answers to the prompts that all sources answer: of each sample its text and whether it ended."""
    return prompt_answer_store(context, name, name, first_prompts(context))


def generate_answers(context: RunContext, name: str) -> bool:
    """Let a source answer the prompts that all do, together with other processes at it; whether there was something to do."""
    return answer_prompts(context, name, answer_store(context, name), first_prompts(context))


def prompt_answer_store(context: RunContext, name: str, folder: str, prompts: Mapping[str, Example]) -> ResponseStore:
    """The folder of a source's answers to these prompts."""
    return kept_by_prompt(context, folder, _answers_key(context, name, prompts), list(prompts))


def refuse_other_answers(context: RunContext) -> None:
    """Raise ValueError for all answers that are there from something else, before the first source writes."""
    prompts, size = first_prompts(context), context.config.extract.shard_size
    folder = context.config.folder / "responses"
    keys = {
        folder / name: store_key(_answers_key(context, name, prompts), list(prompts), size)
        for name in context.responding.sources
    }
    refuse_other_keys(keys, REDO)


def _answers_key(context: RunContext, name: str, prompts: Mapping[str, Example]) -> dict[str, Any]:
    """All that the answers of a source depend on besides which prompts there are."""
    return {
        **answering_key(context, name, encoded_prompts(context, name, prompts)),
        "decoding": asdict(context.responding.settings.decoding),
    }


def answer_prompts(context: RunContext, name: str, folder: ResponseStore, prompts: Mapping[str, Example]) -> bool:
    """Let a source answer these prompts into their folder; whether there was something to do."""
    decoding = context.responding.settings.decoding
    return write_answers(context, name, folder, encoded_prompts(context, name, prompts), decoding, _text_and_end)


def _text_and_end(prompt: Prompt, completion: Completion) -> list[Any]:
    return [completion.text.removeprefix(prompt.lead), completion.ended]


def first_prompts(context: RunContext) -> dict[str, Example]:
    """One example of each prompt that all sources answer, by what is asked: of those with a reference, or of all."""
    examples = context.original_examples
    return by_prompt([e for e in examples if e.response] if context.responding.best_answers_unlabelled else examples)


def by_prompt(examples: Iterable[Example]) -> dict[str, Example]:
    """One example of each prompt, the first, by what is asked."""
    return {example.prompt_id: example for example in reversed(list(examples))}


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
    writer = context.backend(name).open_generator(source_request(context, name))
    with bar(f"answers of {name}", len(prompts), "prompts", folder.written) as advance:

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


def answering_key(context: RunContext, name: str, prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """All that a model's answers to prompts depend on, besides how they are drawn."""
    return {
        "model": context.fingerprints[name],
        "prompts": prompt_format(context, name).key()
        | {"ids": fingerprint({id: prompt.ids for id, prompt in prompts.items()})},
        "dtype": context.config.extract.resolved_dtype,
        "backend": context.backend(name).identity(),
    }


def kept_by_prompt(context: RunContext, name: str, key: dict[str, Any], ids: Sequence[str]) -> ResponseStore:
    """The folder of this name with a value for each prompt id, in the run or where runs share it."""
    size = context.config.extract.shard_size
    folder = context.store.artifact_folder("responses", name, store_key(key, ids, size))
    return ResponseStore(folder, key, ids, shard_size=size, redo=REDO)


def source_request(context: RunContext, name: str, k: int = 1) -> SourceRequest:
    """Ask for a model of the run, to write or to read."""
    extract = context.config.extract
    return SourceRequest(
        context.models[name].ref, context.tokenizers[name], k, extract.resolved_dtype, device(), extract.batch_tokens,
        prompt_format=prompt_format(context, name),
    )  # fmt: skip
