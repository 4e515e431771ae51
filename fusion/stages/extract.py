"""The stage in which models read the examples and leave their rows: whose cache is where, who fills it, what it must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusion.cache import Cache, CacheWriter, full_key, write_missing_shards
from fusion.core.finite import row_fault
from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded, tokens_digest
from fusion.data.example import Example, other_answers
from fusion.data.folds import assign_folds, prompt_key
from fusion.models import loading
from fusion.models.loading import ModelRef, tokenizer_identity, vocabulary_size
from fusion.runtime import distributed
from fusion.runtime.artifacts import refuse_other_keys
from fusion.runtime.console import bar, console
from fusion.runtime.distributed import device, free_memory
from fusion.sources import Source, SourceRequest
from fusion.stages.context import BATCH, RunContext
from fusion.stages.helping import Batch, batches
from fusion.stages.prompts import prompt_format
from fusion.stages.requirements import lacking
from fusion.training import auxiliary_modules

HELPING_SAMPLE = 2000
"""Examples of a domain that *is this source helping?* looks at."""


def cache_writer(
    context: RunContext, name: str, folder: Path | None = None, *, kept_as: str | None = None
) -> CacheWriter:
    """The cache of one model, claimed for all that makes its rows.

    It lies in `folder`, or in that of the run (or of the runs that share it) which is called `kept_as`, `name` if not said.
    """
    extract, key = context.config.extract, _cache_key(context, name)
    size = vocabulary_size(context.tokenizers[name])
    folder = folder or context.store.artifact_folder("cache", kept_as or name, _whole_key(context, name, key))
    return CacheWriter(
        folder, key, context.ids, extract.shard_size, extract.resolved_value_format, vocabulary=size,
        tokenizer=tokenizer_identity(context.tokenizers[name]), redo=context.redo or "fusion extract",
    )  # fmt: skip


def refuse_other_caches(context: RunContext) -> None:
    """Raise ValueError for all caches that are there from something else, before the first model reads."""
    keys = {
        context.config.folder / "cache" / name: _whole_key(context, name, _cache_key(context, name))
        for name in context.extracted_models
    }
    refuse_other_keys(keys, "fusion extract")


def _whole_key(context: RunContext, name: str, key: dict[str, Any]) -> dict[str, Any]:
    """The key with which a cache is claimed."""
    extract, size = context.config.extract, vocabulary_size(context.tokenizers[name])
    return full_key(key, sorted(set(context.ids)), extract.resolved_value_format, extract.shard_size, vocabulary=size)


def _cache_key(context: RunContext, name: str) -> dict[str, Any]:
    """All that the rows of a model depend on besides the examples."""
    extract = context.config.extract
    key = {
        "model": context.fingerprints[name],
        "prompts": prompt_format(context, name).key() | {"tokens": tokens_digest(context.encoded(name))},
        "max_length": context.config.data.max_length,
        "top_k": 1 if name == "pivot" else extract.top_k,
        "dtype": extract.resolved_dtype,
    }
    if extract.sampling is not None and name != "pivot":
        key |= {"top_k": extract.sampling.draws, "sampling": extract.sampling.model_dump()}
    if name == "pivot" and len(context.pivot_stop_ids) > 1:
        key["stop_ids"] = list(context.pivot_stop_ids)
    if context.autocast is not None:
        key["autocast"] = context.autocast
    key["backend"] = context.backend(name).identity()
    if others := _refs(context, name)[1:]:
        key["parts"] = [loading.model_fingerprint(other) for other in others]
    if extract.hidden_states and name != "pivot":  # else left out: the key of caches made before there was a choice
        key["hidden"] = True
    return key


def open_source(context: RunContext, name: str, ref: ModelRef | None = None) -> Source:
    """Load a model, ready to give the rows that `cache_writer` keeps; `ref` instead, where a source has several models."""
    extract, size = context.config.extract, vocabulary_size(context.tokenizers[name])
    k = 1 if name == "pivot" else size if extract.top_k == "all" else min(extract.top_k, size)
    wanted = SourceRequest(
        ref or context.models[name].ref, context.tokenizers[name], k, extract.resolved_dtype, device(), extract.batch_tokens,
        extract.compile,
        context.autocast,
        sampling=None if name == "pivot" else extract.sampling,
        hidden=extract.hidden_states and name != "pivot",
        stop_ids=context.pivot_stop_ids if name == "pivot" else (),
    )  # fmt: skip
    return context.backend(name).open(wanted)


def checked_cache(writer: CacheWriter) -> Cache:
    """Open a cache that was complete before. Raises ValueError where a byte of it is not as it was written."""
    cache = Cache(writer.folder)
    if distributed.is_main_process():
        cache.verify()
    return cache


def extract_one(context: RunContext, name: str, writer: CacheWriter) -> Cache:
    """Let a model read the examples that have no rows yet, beside other processes that may do the same; return the cache."""
    texts, place = context.encoded(name), {id: number for number, id in enumerate(context.ids)}
    lengths = texts.lengths
    sizes = {n: int(lengths[[place[id] for id in writer.examples(n)]].sum()) for n in range(writer.shards)}
    total, missing = sum(sizes.values()), sum(sizes[number] for number in writer.missing())
    sources, reader = [open_source(context, name, ref) for ref in _refs(context, name)], _readers(context, name)
    with bar(f"rows of {name}", total, "tokens", total - missing) as advance:

        def rows(number: int) -> LogitRows:
            ids = writer.examples(number)
            models = sources  # noqa: F821  (deleted below, as a model is large)
            found = _together(models, [reader[id] for id in ids], [texts[place[id]] for id in ids], advance)
            refuse_broken_rows(context, name, [context.extracted_examples[place[id]] for id in ids], found)
            return found

        cache = write_missing_shards(writer, rows, lambda number: advance(sizes[number]))
    del sources, rows
    free_memory()
    return cache


def refuse_broken_rows(context: RunContext, name: str, examples: Sequence[Example], rows: LogitRows) -> None:
    """Raise ValueError, with model, example and row, where a model said NaN: nothing that is made of it could be right."""
    if (fault := row_fault(rows, gold_is_known=context.backend(name).has_weights)) is None:
        return
    example, dtype = examples[fault.example], context.config.extract.resolved_dtype
    way_out = {
        "float16": "float16 ends at 65504, and this model goes beyond it: set extract.dtype to bfloat16 or float32",
        "bfloat16": "Set extract.dtype to float32; if it stays so, the model itself gives no numbers for this text, so leave "
        "the example out, or the model",
    }.get(
        dtype, "The model itself gives no numbers for this text: compare its files with the original's, or leave it out"
    )
    raise ValueError(
        f"{'the pivot' if name == 'pivot' else f'source {name}'} ({context.models[name].path}, {dtype}): in example "
        f"{example.id} ({example.prompt[:40]!r}) {fault}. {way_out}."
    )


def _refs(context: RunContext, name: str) -> list[ModelRef]:
    parts = (context.fold_models(source) for source in context.config.sources if source.name == name)
    return [model.ref for model in next(parts, [context.models[name]])]


def _readers(context: RunContext, name: str) -> dict[str, int]:
    """By example id: the number of the model that was not trained on it; the first, where none was or there is but one."""
    trainings = [
        alone
        for source in context.config.sources
        if source.name == name
        for alone in context.fine_tunings(source).values()
    ]
    parts = assign_folds(trainings[0].original_examples, len(trainings)) if len(trainings) > 1 else {}
    return {example.id: parts.get(prompt_key(example), 0) for example in context.extracted_examples}


def _together(
    sources: Sequence[Source], reader: Sequence[int], texts: Sequence[Encoded], progress: Callable[[int], None]
) -> LogitRows:
    """Return the rows of all texts in their order; each text is read by its own model, which was not trained on it."""
    if len(sources) == 1:
        return sources[0].rows(texts, progress)
    read = []
    for number in sorted(set(reader)):
        mine = [at for at, its in enumerate(reader) if its == number]
        rows = sources[number].rows([texts[at] for at in mine], progress)
        # a source numbers the texts that it was given: here they get back their numbers among all
        read.append(replace(rows, example=rows.example.new_tensor(mine)[rows.example.long()]))
    together = LogitRows.cat(read)
    # stable: rows of an example stay in the order of its text
    return together.select(together.example.argsort(stable=True))


def refuse_unknown(context: RunContext, caches: dict[str, Cache]) -> None:
    """Raise ValueError where objectives or weighting read what a source's rows do not hold, before anything is trained."""
    sources = {name: cache.known_fields for name, cache in caches.items() if name != "pivot"}
    transforms = {source.name: source.transforms for source in context.config.sources}
    if missing := lacking(context.config.objectives, context.config.weighting, sources, transforms):
        raise ValueError("\n".join(missing))
    for source in context.config.sources:
        weights = context.models[source.name].ref if source.backend.has_weights else None
        auxiliary_modules.check_modules(
            context.config.objectives,
            weights,
            vocabulary_size(context.tokenizers[source.name]),
            caches.get(source.name),
        )


def helping_batches(context: RunContext, caches: dict[str, Cache]) -> Iterator[Batch]:
    """Rows of all models, some examples at a time; of each domain no more than a sample, and that is said."""
    chosen: dict[str, list[Example]] = {}
    for example in sorted(
        {example.id: example for example in context.train_examples}.values(), key=lambda e: e.id
    ):  # by hash: at random
        chosen.setdefault(example.domain, []).append(example)
    if any(len(examples) > HELPING_SAMPLE for examples in chosen.values()):
        console.print(f"  measured on {HELPING_SAMPLE:,} examples, chosen at random, of each domain that has more")
    domains = list(dict.fromkeys(example.domain for example in context.train_examples))
    examples = [example for domain in domains for example in chosen[domain][:HELPING_SAMPLE]]
    return batches(caches, examples, BATCH, context.eligibility)


def refuse_lone_answers(context: RunContext) -> None:
    """Raise ValueError where an objective looks at other answers to a prompt and no prompt of the training data has two."""
    for number, objective in enumerate(context.config.objectives):
        if objective.weight and objective.requirements.other_answers and not any(other_answers(context.train_examples)):
            raise ValueError(
                f"objectives[{number}] ({objective.kind}) with other_answers compares answers to one prompt, and each of "
                f"the {len(context.train_examples)} training examples has a prompt of its own. Add data with the same prompts "
                "and other responses, such as ones with a chain of thought, or set other_answers to false."
            )
