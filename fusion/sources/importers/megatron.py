"""Importer of Megatron-LM's cached teacher logits: tar archives of zstd-compressed tensors, each of some iterations.

    dp0__200.tar, dp1__200.tar        data-parallel rank and last iteration (first versions: cp0_dp0__200.tar)
        _meta.json                    format_version, and how the run was split (saver.mbs_save, dp_size_save, gbs_save)
        100.pt.zst, 101.pt.zst        an iteration each (or a range of samples: 800-808.pt.zst):
            values       log-probabilities of the K most likely, [S, B, K], or a list of such for each micro-batch
            indices_low  the lower 16 bits of their ids, uint16
            bit_17       the 17th bit, bool; so ids end at 131,071

Entries cut off by top-P are -1e3 or -1e4. The values are normalised already; no logsumexp is kept. No tokens are kept either,
only a hash of how the data were sampled, so the sequences must be given, in the order in which Megatron read them: JSON lines
with `input_ids`. Sample j of micro-batch m on rank d of D is number (m D + d) mbs + j of its iteration. Tensors are read
without running anything that a pickle may hold (torch.load with weights_only).

These facts are Megatron-LM's own (megatron/training/distillation, PR 5019 and its second format, as of 2026). Caches split by
context parallelism (cp1_...) and formats from 3 on, which the public code did not settle, are refused. Sequences packed from
several documents match no example unless it stands first.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from fusion.sources.importers.sequence import ImportedSequence
from fusion.sources.listed import dtype_errors

ARCHIVE_NAME = re.compile(r"(?:cp(?P<cp>\d+)_)?dp(?P<dp>\d+)__(?P<from>\d+)(?:-\d+)?\.tar")
MEMBER_NAME = re.compile(r"(?P<at>\d+)(?:-(?P<to>\d+))?\.pt\.zst")
MicroBatch = tuple[Tensor, Tensor]
"""Log-probabilities and ids, [S, B, K], of one micro-batch."""


def read_megatron(files: Sequence[Path], tokens: Path | None = None) -> Iterator[ImportedSequence]:
    """Yield sequences in the order of the training run. `tokens` is the JSON-lines file with their `input_ids`.

    Raises ValueError without it, where ranks or iterations are missing, and where there are more sequences than tokens.
    """
    if tokens is None:
        raise ValueError(
            "Megatron's caches hold no tokens. Give --tokens FILE: JSON lines with input_ids, in the order of the run."
        )
    ranks = _ranks(files)
    with tokens.open("rb") as lines:
        number = 0
        for batches in zip_longest(*(_batches(archives) for archives in ranks)):
            for iteration, values, ids in _samples(batches):
                line = next(lines, None)
                if line is None:
                    raise ValueError(f"{tokens} has {number} lines, and the cache has more sequences than that.")
                where = f"{files[0].parent}, iteration {iteration}, {tokens.name} line {number + 1}"
                yield _sequence(_input_ids(line, f"{tokens}, line {number + 1}"), values, ids, where)
                number += 1
        if next(lines, None) is not None:
            raise ValueError(f"{tokens} has more lines than the cache has sequences ({number}).")


def _input_ids(line: bytes, where: str) -> list[int]:
    try:
        ids = json.loads(line)["input_ids"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{where} must be an object with input_ids, a list of token ids, and is {line[:60]!r}."
        ) from error
    if not isinstance(ids, list) or not all(isinstance(id, int) for id in ids):
        raise ValueError(f"{where} must be an object with input_ids, a list of token ids, and is {line[:60]!r}.")
    return ids


def _ranks(files: Sequence[Path]) -> list[list[Path]]:
    """Return the archives of each data-parallel rank, in the order of the run."""
    archives: dict[int, list[tuple[int, Path]]] = {}
    for file in files:
        match = ARCHIVE_NAME.fullmatch(file.name)
        if match is None:
            raise ValueError(f"{file} is not named as Megatron names its caches, for example dp0__200.tar.")
        if int(match["cp"] or 0):
            raise ValueError(
                f"{file} is a part of sequences that were split by context parallelism, which is not read."
            )
        archives.setdefault(int(match["dp"]), []).append((int(match["from"]), file))
    if sorted(archives) != list(range(len(archives))):
        raise ValueError(
            f"Archives of data-parallel ranks {sorted(archives)} are there; those of the others are missing."
        )
    return [[file for _, file in sorted(archives[rank])] for rank in sorted(archives)]


def _batches(archives: Sequence[Path]) -> Iterator[tuple[int, list[MicroBatch]]]:
    """Yield the number and the micro-batches of each iteration of one rank. Raises ValueError where iterations are missing."""
    expected: int | None = None
    for archive in archives:
        with _naming_damage(archive):
            expected = yield from _iterations(archive, expected)


@contextmanager
def _naming_damage(archive: Path) -> Iterator[None]:
    """Raise ValueError with the archive for what tarfile, json, zstd and torch.load raise for one that is damaged."""
    try:
        yield
    except (
        tarfile.TarError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        EOFError,
        UnpicklingError,
        RuntimeError,
    ) as error:
        raise ValueError(f"{archive} is cut or damaged ({error}); copy it again.") from error


def _iterations(archive: Path, expected: int | None) -> Generator[tuple[int, list[MicroBatch]], None, int | None]:
    """Yield the iterations of one archive, and return the one that is due after them; `expected` is due first."""
    meta: Mapping[str, Any] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is None:
                continue
            if member.name == "_meta.json":
                meta = json.load(stream)
            elif match := MEMBER_NAME.fullmatch(member.name):
                iteration = int(match["at"])
                if expected is not None and iteration != expected:
                    raise ValueError(
                        f"{archive} goes on at {iteration}, where {expected} is due: the archive between is missing."
                    )
                expected = int(match["to"] or iteration + 1)
                yield iteration, _micro_batches(_tensors(stream.read()), meta.get("saver", {}), archive)
    return expected


def _tensors(data: bytes) -> dict[str, Any]:
    try:
        import zstandard
    except ImportError as error:
        raise ValueError("Megatron's caches are compressed with zstd: pip install zstandard.") from error
    try:
        whole = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise tarfile.ReadError(f"zstd: {error}") from error
    return torch.load(io.BytesIO(whole), weights_only=True)


def _micro_batches(tensors: Mapping[str, Any], saver: Mapping[str, Any], archive: Path) -> list[MicroBatch]:
    """Return the micro-batches of one rank and iteration, from either format."""
    version = max(tensors.get("format_version", 1), saver.get("format_version", 1))
    if version > 2 or not {"values", "indices_low", "bit_17"} <= tensors.keys():
        raise ValueError(f"{archive} has format {version} with {', '.join(tensors)}; formats 1 and 2 are read.")
    parts = [tensors[name] for name in ("values", "indices_low", "bit_17")]
    if version == 2:
        size = saver.get("mbs_save") or parts[0].shape[1]
        parts = [part.split(size, dim=1) for part in parts]
    return [(values, high.long() << 16 | low.long()) for values, low, high in zip(*parts, strict=True)]


def _samples(iterations: Sequence[tuple[int, list[MicroBatch]] | None]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the iteration, log-probabilities and ids [S, K] of each of its samples, in the order of the run."""
    ranks = [rank for rank in iterations if rank is not None]
    if len(ranks) < len(iterations) or len({(number, len(batches)) for number, batches in ranks}) > 1:
        numbers = ", ".join("none" if rank is None else str(rank[0]) for rank in iterations)
        raise ValueError(f"The ranks' archives hold different iterations: {numbers} at the same place.")
    for micro in zip(*(batches for _, batches in ranks), strict=True):
        for values, ids in micro:
            yield from ((ranks[0][0], values[:, j], ids[:, j]) for j in range(values.shape[1]))


def _sequence(tokens: list[int], values: Tensor, ids: Tensor, where: str) -> ImportedSequence:
    if len(tokens) > len(values) + 1:
        raise ValueError(f"{where}: {len(tokens)} tokens, and the cache has {len(values)} positions of this sequence.")
    if not values.is_floating_point():
        raise ValueError(f"{where}: values are {values.dtype}, and log-probabilities are floating-point numbers.")
    return ImportedSequence(tokens, values.float(), ids, origin=where, errors=dtype_errors(values, values.dtype))
