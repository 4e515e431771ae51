"""Caches by hand: made from what other programs wrote, and looked at."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from fusion.cache import Cache, Writer, fill
from fusion.dumps import Format, Told, bind, find, read
from fusion.encode import Encoded
from fusion.job import Job
from fusion.made import write_json
from fusion.models import vocabulary
from fusion.progress import bar
from fusion.rows import LogitRows
from fusion.steps import cache_writer

RECORD = "imported.json"


def import_cache(
    job: Job,
    name: str,
    form: Format,
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
    _refuse_other_backends(job, name)
    files = find(form, places)
    writer = cache_writer(job, name, out)
    if writer.complete:
        raise ValueError(f"{writer.folder} is complete already. Delete it to import again.")
    size, top_k = vocabulary(job.tokenizers[name]), job.config.extract.top_k
    texts = dict(zip(job.ids, job.encoded(name), strict=True))
    with bar("sequences", len(texts)) as advance:
        sequences = _heard(read(form, files, codec, tokens), advance)
        rows, counts = bind(sequences, texts, size if top_k == "all" else top_k, size)
    _refuse_missing(texts, rows, counts)
    checksums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    write_json(writer.folder / RECORD, {"format": form, "files": checksums, "sequences": counts})
    return fill(writer, lambda number: _shard(writer, rows, number))


def facts(folder: Path) -> dict[str, str]:
    """What a cache is, in words, finished or not. Raises ValueError for a folder without key.json."""
    if not (folder / "key.json").exists():
        raise ValueError(f"{folder} is no cache: it holds no key.json. Caches are in runs/<name>/cache/<model>.")
    key = json.loads((folder / "key.json").read_text())
    found = _contents(Cache(folder)) if (folder / "manifest.json").exists() else _progress(folder)
    if (folder / RECORD).exists():
        record = json.loads((folder / RECORD).read_text())
        counts = ", ".join(f"{count} {what}" for what, count in record["sequences"].items())
        found["imported"] = f"{record['format']}: {', '.join(record['files'])} ({counts})"
    return found | {f"made of: {name}": json.dumps(value).strip('"') for name, value in key.items()}


def _contents(cache: Cache) -> dict[str, str]:
    known, rows = cache.known, len(cache)
    return {
        "examples": f"{cache.examples:,}",
        "rows": f"{rows:,}",
        "entries a row": f"{cache.entries}"
        + (f", at least {known.entries} known" if known.entries < cache.entries else ""),
        "bytes a row": f"{cache.size / max(1, rows):.1f}",
        "gold known": f"{known.gold / max(1, rows):.1%} of rows",
        "mean and std known": f"{known.moments / max(1, rows):.1%} of rows",
        **({"hidden states": f"{cache.width} numbers of float16 a row"} if cache.width else {}),
    }


def _progress(folder: Path) -> dict[str, str]:
    written = sorted(folder.glob("shard-*.safetensors"))
    total = int(written[0].stem.rsplit("-", 1)[1]) if written else 0
    return {"not complete": f"{len(written)} of {total or '?'} shards are written; `fusion extract` goes on"}


def _refuse_other_backends(job: Job, name: str) -> None:
    if name == "pivot" or name not in job.models or job.backend(name).kind != "imported":
        names = ", ".join(source.name for source in job.config.sources)
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


def _heard(sequences: Iterable[Told], advance: Callable[[int], None]) -> Iterator[Told]:
    for told in sequences:
        advance(1)
        yield told


def _shard(writer: Writer, rows: Mapping[str, LogitRows], number: int) -> LogitRows:
    parts = [rows[id] for id in writer.examples(number)]
    counts = torch.tensor([len(part) for part in parts])
    return dataclasses.replace(LogitRows.cat(parts), example=torch.arange(len(parts)).repeat_interleave(counts))
