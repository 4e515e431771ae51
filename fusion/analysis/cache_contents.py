"""The contents of a cache in words, and what its rows give away of the model they come from."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from fusion.cache import Cache
from fusion.cache.head_recovery import principal_angles, recover_span_from_cache
from fusion.core.text_files import read_object
from fusion.models.loading import ModelRef, load_model
from fusion.stages.import_cache import IMPORT_RECORD


def describe_cache(folder: Path) -> dict[str, str]:
    """The contents of a cache, complete or not, as text by name. Raises ValueError for a folder without key.json."""
    if not (folder / "key.json").exists():
        raise ValueError(f"{folder} is no cache: it holds no key.json. Caches are in runs/<name>/cache/<model>.")
    key = read_object(folder / "key.json")
    described = _contents(Cache(folder)) if (folder / "manifest.json").exists() else _progress(folder)
    if (folder / IMPORT_RECORD).exists():
        record = read_object(folder / IMPORT_RECORD)
        counts = ", ".join(f"{count} {what}" for what, count in record["sequences"].items())
        described["imported"] = f"{record['format']}: {', '.join(record['files'])} ({counts})"
    return described | {f"made of: {name}": json.dumps(value).strip('"') for name, value in key.items()}


def recover_head(
    folder: Path,
    *,
    rows: int = 2048,
    model: str | None = None,
    softcap: float | None = None,
    width: int | None = None,
    out: Path | None = None,
) -> dict[str, str]:
    """What a cache of whole rows gives away of the model's output layer, as text by name; see `recover_span_from_cache`.

    Writes the recovered span to the safetensors file `out`. With the `model` at hand, compares the span with its output layer
    by principal angles. Raises ValueError where the cache does not hold whole rows, where nothing is found, and for a model
    with fewer tokens.
    """
    cache = Cache(folder)
    found = recover_span_from_cache(cache, rows, softcap, width)
    outside = found.singular_values[found.hidden_size :].norm() / found.singular_values.norm()
    described = {
        "rows looked at": f"{found.rows:,}",
        "vocabulary": f"{len(found.basis):,}",
        "hidden width": f"{found.hidden_size}",
        "gap behind it": f"{found.gap:.3g} (singular values {found.hidden_size} and {found.hidden_size + 1})",
        "all that is outside": f"{outside:.2e} of the rows' norm",
    }
    if model is not None:
        described |= _compare_head(found.basis, model)
    if out is not None:
        metadata = {"width": str(found.hidden_size), "rows": str(found.rows), "cache": cache.artifact_key}
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file({"basis": found.basis.float()}, out, metadata=metadata)
        described["basis"] = f"{out}: [{len(found.basis)}, {found.hidden_size}]"
    return described


def _compare_head(basis: Tensor, model: str) -> dict[str, str]:
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
    known, rows = cache.known_fields, len(cache)
    return {
        "examples": f"{cache.num_examples:,}",
        "rows": f"{rows:,}",
        "entries a row": _entries(cache),
        "bytes a row": f"{cache.size_in_bytes / max(1, rows):.1f}",
        "gold known": f"{known.gold / max(1, rows):.1%} of rows",
        "mean and std known": f"{known.moments / max(1, rows):.1%} of rows",
        **({"hidden states": f"{cache.hidden_size} numbers of float16 a row"} if cache.hidden_size else {}),
    }


def _entries(cache: Cache) -> str:
    least = cache.known_fields.min_entries
    if cache.is_sampled:
        return f"{cache.entries} drawn at random, at least {least} different"
    return f"{cache.entries}" + (f", at least {least} known" if least < cache.entries else "")


def _progress(folder: Path) -> dict[str, str]:
    written = sorted(folder.glob("shard-*.safetensors"))
    total = int(written[0].stem.rsplit("-", 1)[1]) if written else 0
    return {"not complete": f"{len(written)} of {total or '?'} shards are written; `fusion extract` goes on"}
