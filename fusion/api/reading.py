"""A model reads examples: its rows become a cache, in a folder that is kept or in one that goes with the object."""

from __future__ import annotations

import datetime
import weakref
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from fusion.api.encoding import day_of, encode_examples, prompt_format_of, refuse_unreadable
from fusion.api.examples import AnyExamples, read_examples
from fusion.api.given import count_of, dtype_of, path_of
from fusion.cache import Cache, CacheWriter, write_missing_shards
from fusion.config import ModelSettings
from fusion.core.text_files import read_object
from fusion.data.encode import tokens_digest
from fusion.models.loading import load_config, load_tokenizer, model_fingerprint, tokenizer_identity, vocabulary_size
from fusion.models.precision import preferred_dtype
from fusion.runtime.artifacts import OtherInputsError
from fusion.runtime.console import bar
from fusion.runtime.distributed import device as this_device
from fusion.runtime.distributed import free_memory
from fusion.runtime.unfinished import temporary_folder
from fusion.sources import SourceRequest, Transformers

SHARD_SIZE = 1024
"""Examples of a file of the cache."""


def extract(
    model: str | Path,
    examples: AnyExamples,
    *,
    top_k: int = 10,
    folder: str | Path | None = None,
    max_length: int = 1024,
    hidden_states: bool = False,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    batch_tokens: int = 4096,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    answer_prefix: str | None = None,
    trust_remote_code: bool = False,
) -> Cache:
    """Let a model read the examples, and return its rows at every position of the responses.

    Args:
        model: A folder, a `.gguf` file, a hub id, or `quickstart:NAME` for a model that comes with the package.
        examples: What `read_examples` takes: a data file, rows in memory, or examples.
        top_k: Largest entries kept of each row.
        folder: Where the cache is kept: a second call returns it, and one that was stopped goes on. Without a folder the
            cache lies in a temporary one, which is deleted when the returned object is. A chat template that writes today's
            date writes the day on which the cache was begun, also later.
        max_length: Tokens at which prompt and response together are cut; it is said how many were.
        hidden_states: Whether rows also hold the hidden state that the output layer reads, which takes much room.
        dtype: Type that the model computes in. If not given, bfloat16 on a GPU that has it and on a CPU with AMX, else float32.
        device: `cuda` where there is one, if not said.
        batch_tokens: Tokens of a batch, padding included.
        chat_template_kwargs: Variables for the chat template, such as `{"enable_thinking": False}`.
        answer_prefix: Text between the template's generation prompt, or a plain prompt, and every answer, such as a closed
            thought. If not given, what the template itself writes there.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        A `Cache`; `cache.rows([example.id])` are the `LogitRows` of an example.

    Raises:
        ValueError: Where the model cannot be loaded, an example cannot be read or is longer than the model reads, or the folder
            holds rows of something else.
    """
    ref = ModelSettings(path=path_of(model), trust_remote_code=trust_remote_code).ref
    tokenizer, found = load_tokenizer(ref), read_examples(examples)
    unique = list({example.id: example for example in found}.values())
    day = _day(folder)
    form = prompt_format_of(tokenizer, chat_template_kwargs, answer_prefix, day)
    texts = encode_examples(tokenizer, unique, max_length, form)
    refuse_unreadable(ref.path, load_config(ref), tokenizer, unique, texts)
    dtype = dtype_of(dtype) or preferred_dtype()
    top_k = count_of(top_k, "top_k")
    k = min(top_k, vocabulary_size(tokenizer))
    key = {
        "model": model_fingerprint(ref),
        "prompts": form.key() | {"tokens": tokens_digest(texts)},
        "max_length": max_length,
        "top_k": top_k,
        "dtype": dtype,
        "backend": Transformers().identity(),
    }
    key |= ({"hidden": True} if hidden_states else {}) | ({"date": day.isoformat()} if day else {})
    place, temporary = _place(folder)
    ids = [example.id for example in unique]
    try:
        writer = CacheWriter(
            place,
            key,
            ids,
            SHARD_SIZE,
            vocabulary=vocabulary_size(tokenizer),
            tokenizer=tokenizer_identity(tokenizer),
        )
    except OtherInputsError as error:
        raise ValueError(
            f"{place} holds rows of something else: {error.different}. Give another folder, or delete {place} and call extract "
            "again."
        ) from None
    request = SourceRequest(
        ref, tokenizer, k, dtype, device or this_device(), batch_tokens, hidden=hidden_states
    )  # fmt: skip
    with temporary:
        cache = writer.finalize() if writer.is_complete else _read(request, writer, dict(zip(ids, texts, strict=True)))
        weakref.finalize(cache, temporary.pop_all().close)  # no error was raised, which would have removed it
    return cache


def _day(folder: str | Path | None) -> datetime.date | None:
    """Today, or the day on which the cache in the folder was begun; None for a cache of before, which did not keep it."""
    file = None if folder is None else Path(folder) / "key.json"
    if file is None or not file.exists():
        return datetime.date.today()
    with suppress(ValueError):  # it was cut off, which is said where the folder is claimed
        return day_of(read_object(file))
    return datetime.date.today()


def _place(folder: str | Path | None) -> tuple[Path, ExitStack]:
    """The folder of the cache, and what deletes it, where it is a temporary one."""
    if folder is not None:
        return Path(folder), ExitStack()
    temporary = ExitStack()
    return temporary.enter_context(temporary_folder("fusion-cache-")) / "cache", temporary


def _read(request: SourceRequest, writer: CacheWriter, texts: dict[str, Any]) -> Cache:
    """Write the shards that are missing."""
    source = Transformers().open(request)
    sizes = {number: sum(len(texts[id].input_ids) for id in writer.examples(number)) for number in range(writer.shards)}
    total, missing = sum(sizes.values()), sum(sizes[number] for number in writer.missing())
    with bar(f"rows of {Path(request.ref.path).name}", total, "tokens", total - missing) as advance:
        cache = write_missing_shards(
            writer,
            lambda number: source.rows([texts[id] for id in writer.examples(number)], advance),
            lambda number: advance(sizes[number]),
        )
    free_memory()
    return cache
