"""Caches by hand: made from what other programs wrote, and looked at."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fusion.cache import Cache, Writer, fill
from fusion.cache.head_recovery import audit, principal_angles
from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded
from fusion.models.loading import ModelRef, load_model, vocabulary
from fusion.runtime.artifacts import write_json
from fusion.runtime.console import bar
from fusion.sources.importers import Format, Told, bind, find, read
from fusion.stages.context import Job
from fusion.stages.extract import cache_writer

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


def leak(
    folder: Path,
    rows: int = 2048,
    model: str | None = None,
    softcap: float | None = None,
    width: int | None = None,
    out: Path | None = None,
) -> dict[str, str]:
    """What a cache of whole rows gives away of its model, in words; see `cache.head_recovery.audit`. Writes the span to `out`.

    With the `model` at hand the angles between what was found and its output layer are told. Raises ValueError where the cache
    does not hold whole rows, where nothing is found, and for a model with fewer tokens.
    """
    cache = Cache(folder)
    found = audit(cache, rows, softcap, width)
    said = {
        "rows looked at": f"{found.rows:,}",
        "vocabulary": f"{len(found.basis):,}",
        "hidden width": f"{found.width}",
        "gap behind it": f"{found.gap:.3g} (singular values {found.width} and {found.width + 1})",
        "all that is outside": f"{found.singular[found.width :].norm() / found.singular.norm():.2e} of the rows' norm",
    }
    if model is not None:
        said |= _compared(found.basis, model)
    if out is not None:
        about = {"width": str(found.width), "rows": str(found.rows), "cache": cache.made}
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file({"basis": found.basis.float()}, out, metadata=about)
        said["basis"] = f"{out}: [{len(found.basis)}, {found.width}]"
    return said


def _compared(basis: Tensor, model: str) -> dict[str, str]:
    weight = load_model(ModelRef(model)).get_output_embeddings().weight.detach()
    if len(weight) < len(basis):
        raise ValueError(
            f"{model} has an output layer of {len(weight)} tokens, the cache is of {len(basis)}: another model."
        )
    angles = principal_angles(basis, weight[: len(basis)])
    return {
        "width of the model": f"{weight.shape[1]}",
        "principal angles": f"largest {angles.max():.3g} degrees, mean {angles.mean():.3g}",
    }


def _contents(cache: Cache) -> dict[str, str]:
    known, rows = cache.known, len(cache)
    return {
        "examples": f"{cache.examples:,}",
        "rows": f"{rows:,}",
        "entries a row": _entries(cache),
        "bytes a row": f"{cache.size / max(1, rows):.1f}",
        "gold known": f"{known.gold / max(1, rows):.1%} of rows",
        "mean and std known": f"{known.moments / max(1, rows):.1%} of rows",
        **({"hidden states": f"{cache.width} numbers of float16 a row"} if cache.width else {}),
    }


def _entries(cache: Cache) -> str:
    least = cache.known.entries
    if cache.drawn:
        return f"{cache.entries} drawn at random, at least {least} different"
    return f"{cache.entries}" + (f", at least {least} known" if least < cache.entries else "")


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
