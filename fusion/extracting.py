"""The stage in which models read the examples and leave their rows: whose cache is where, who fills it, what it must hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fusion import corpus
from fusion.cache import Cache, Writer, fill, full_key
from fusion.corpus import Example
from fusion.encode import Message
from fusion.helping import Batch, batches
from fusion.job import BATCH, Job
from fusion.made import fingerprint
from fusion.models import vocabulary
from fusion.needs import lacking
from fusion.progress import bar, console
from fusion.ranks import device, free_memory
from fusion.sources import Source, Wanted
from fusion.store import kept
from fusion.train import owned

HELPING_SAMPLE = 2000
"""Examples of a domain that *is this source helping?* looks at."""


def cache_writer(job: Job, name: str, folder: Path | None = None) -> Writer:
    """The cache of one model, claimed for all that makes its rows; in the run's own `folder` if not said."""
    extract, model = job.config.extract, job.models[name]
    key = {
        "model": job.fingerprints[name],
        "template": model.template,
        "max_length": job.config.data.max_length,
        "top_k": 1 if name == "pivot" else extract.top_k,
        "dtype": extract.dtype,
    }
    if extract.sampling is not None and name != "pivot":
        key |= {"top_k": extract.sampling.draws, "sampling": extract.sampling.model_dump()}
    key["backend"] = job.backend(name).identity()
    if ahead := job.ahead(name):
        key["look_ahead"] = _prompts(job, ahead)
    if extract.hidden and name != "pivot":  # else left out: the key of caches made before there was a choice
        key["hidden"] = True
    size = vocabulary(job.tokenizers[name])
    whole = full_key(key, sorted(set(job.ids)), extract.codec, extract.shard, size)
    folder = folder or kept(job.config, "cache", name, whole)
    return Writer(folder, key, job.ids, extract.shard, extract.codec, vocabulary=size)


def _prompts(job: Job, ahead: Mapping[str, Sequence[Message]]) -> str:
    """What both are: the prompts that the pivot reads, and those that are read ahead instead."""
    ordinary = {example.id: example.messages for example in job.read if example.id in ahead}
    return fingerprint({id: [ordinary[id], messages] for id, messages in ahead.items()})


def open_source(job: Job, name: str) -> Source:
    """A model made ready to give the rows that `cache_writer` keeps."""
    extract, size = job.config.extract, vocabulary(job.tokenizers[name])
    k = 1 if name == "pivot" else size if extract.top_k == "all" else min(extract.top_k, size)
    wanted = Wanted(
        job.models[name].ref, job.tokenizers[name], k, extract.dtype, device(), extract.batch_tokens, extract.compile,
        sampling=None if name == "pivot" else extract.sampling,
        hidden=extract.hidden and name != "pivot",
    )  # fmt: skip
    return job.backend(name).open(wanted)


def extract_one(job: Job, name: str, writer: Writer) -> Cache:
    """Write the missing shards of one model, together with whatever other processes are at it."""
    texts = dict(zip(job.ids, job.encoded(name), strict=True))
    shards = {number: [texts[id] for id in writer.examples(number)] for number in writer.missing()}
    sizes = {number: sum(len(text.input_ids) for text in shard) for number, shard in shards.items()}
    source = open_source(job, name)
    with bar(f"rows of {name}", sum(sizes.values())) as advance:
        cache = fill(writer, lambda number: source.rows(shards[number], advance), lambda number: advance(sizes[number]))
    del source
    free_memory()
    return cache


def refuse_unknown(job: Job, caches: dict[str, Cache]) -> None:
    """Raise ValueError where objectives or weighting read what a source's rows do not hold, before anything is trained."""
    sources = {name: cache.known for name, cache in caches.items() if name != "pivot"}
    transforms = {source.name: source.transforms for source in job.config.sources}
    if missing := lacking(job.config.objectives, job.config.weighting, sources, transforms):
        raise ValueError("\n".join(missing))
    for source in job.config.sources:
        weights = job.models[source.name].ref if source.backend.weights else None
        owned.check(job.config.objectives, weights, vocabulary(job.tokenizers[source.name]), caches.get(source.name))


def helping_batches(job: Job, caches: dict[str, Cache]) -> Iterator[Batch]:
    """Rows of all models, some examples at a time; of each domain no more than a sample, and that is said."""
    chosen: dict[str, list[Example]] = {}
    for example in sorted(
        {example.id: example for example in job.train}.values(), key=lambda e: e.id
    ):  # by hash: at random
        chosen.setdefault(example.domain, []).append(example)
    if any(len(examples) > HELPING_SAMPLE for examples in chosen.values()):
        console.print(f"  measured on {HELPING_SAMPLE:,} examples, chosen at random, of each domain that has more")
    domains = list(dict.fromkeys(example.domain for example in job.train))
    examples = [example for domain in domains for example in chosen[domain][:HELPING_SAMPLE]]
    return batches(caches, examples, BATCH)


def refuse_lone_answers(job: Job) -> None:
    """Raise ValueError where an objective looks at other answers to a prompt and no prompt of the training data has two."""
    for number, objective in enumerate(job.config.objectives):
        if objective.weight and objective.reads_other_answers and not any(corpus.other_answers(job.train)):
            raise ValueError(
                f"objectives[{number}] ({objective.kind}) with other_answers compares answers to one prompt, and each of "
                f"the {len(job.train)} training examples has a prompt of its own. Add data with the same prompts and other "
                "responses, such as ones with a chain of thought, or set other_answers to false."
            )
