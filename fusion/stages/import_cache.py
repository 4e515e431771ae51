"""Import of a cache from what another program wrote."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from fusion.cache import Cache, CacheWriter, write_missing_shards
from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded
from fusion.models.loading import vocabulary_size
from fusion.runtime.artifacts import write_json
from fusion.runtime.console import bar
from fusion.sources.importers import ImportedSequence, ImportFormat, find_files, match_to_examples, read_sequences
from fusion.stages.context import RunContext
from fusion.stages.extract import cache_writer

IMPORT_RECORD = "imported.json"
"""File beside the manifest of an imported cache: what it was imported from."""


def import_cache(
    context: RunContext,
    name: str,
    form: ImportFormat,
    places: Sequence[Path],
    codec: Path | None = None,
    tokens: Path | None = None,
    out: Path | None = None,
) -> Cache:
    """Make the cache of source `name` from the files of another program; `out` is its folder if not that of the run.

    Beside the manifest it leaves imported.json: the files with their checksums, and how many sequences were of use. Raises
    ValueError where the source has another backend than `imported`, for files that cannot be read, and where an example of
    the run is in none of them.
    """
    _refuse_other_backends(context, name)
    files = find_files(form, places)
    writer = cache_writer(context, name, out)
    if writer.is_complete:
        raise ValueError(f"{writer.folder} is complete already. Delete it to import again.")
    size, top_k = vocabulary_size(context.tokenizers[name]), context.config.extract.top_k
    texts = dict(zip(context.ids, context.encoded(name), strict=True))
    with bar("import", len(texts), "sequences") as advance:
        sequences = _with_progress(read_sequences(form, files, codec, tokens), advance)
        rows, counts = match_to_examples(sequences, texts, size if top_k == "all" else top_k, size)
    _refuse_missing(texts, rows, counts)
    checksums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    write_json(writer.folder / IMPORT_RECORD, {"format": form, "files": checksums, "sequences": counts})
    return write_missing_shards(writer, lambda number: _shard(writer, rows, number))


def _refuse_other_backends(context: RunContext, name: str) -> None:
    if name == "pivot" or name not in context.models or context.backend(name).kind != "imported":
        names = ", ".join(source.name for source in context.config.sources)
        raise ValueError(
            f"{name} is no source whose rows come from elsewhere; the sources are {names}. Give it backend: "
            "{kind: imported} in the configuration, and the path of its tokenizer."
        )


def _refuse_missing(texts: Mapping[str, Encoded], rows: Mapping[str, LogitRows], counts: Counter[str]) -> None:
    if missing := texts.keys() - rows.keys():
        others = "; ".join(f"{count} {what}" for what, count in counts.items() if what != "matched")
        raise ValueError(
            f"{len(missing)} of {len(texts)} examples are in none of the files, the first is {min(missing)}. Of "
            f"{counts.total()} sequences {counts['matched']} were of use{'; ' if others else ''}{others}. Sequences must begin "
            "with the tokens of the prompt as this run writes it, and hold the response and its end of turn: compare template "
            "and max_length, or leave the missing examples out of the data."
        )


def _with_progress(sequences: Iterable[ImportedSequence], advance: Callable[[int], None]) -> Iterator[ImportedSequence]:
    for sequence in sequences:
        advance(1)
        yield sequence


def _shard(writer: CacheWriter, rows: Mapping[str, LogitRows], number: int) -> LogitRows:
    parts = [rows[id] for id in writer.examples(number)]
    counts = torch.tensor([len(part) for part in parts])
    return dataclasses.replace(LogitRows.cat(parts), example=torch.arange(len(parts)).repeat_interleave(counts))
