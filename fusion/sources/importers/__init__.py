"""Rows that other programs wrote: their files read as sequences, and bound to the examples of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from fusion.sources.importers.matching import match_to_examples
from fusion.sources.importers.sequence import ImportedSequence

ImportFormat = Literal["distillkit", "megatron", "vllm", "jsonl"]

FILE_SUFFIXES: dict[ImportFormat, str] = {
    "distillkit": ".parquet",
    "megatron": ".tar",
    "vllm": ".jsonl",
    "jsonl": ".jsonl",
}

__all__ = ["FILE_SUFFIXES", "ImportFormat", "ImportedSequence", "find_files", "match_to_examples", "read_sequences"]


def find_files(form: ImportFormat, places: Sequence[Path]) -> list[Path]:
    """The files among `places`, and those of the format in folders, by name. Raises ValueError for what is not there."""
    return [file for place in places for file in _files(place, FILE_SUFFIXES[form])]


def read_sequences(
    form: ImportFormat, files: Sequence[Path], codec: Path | None = None, tokens: Path | None = None
) -> Iterator[ImportedSequence]:
    """Sequences of the files, one at a time. `codec` is for distillkit, `tokens` for megatron; see there.

    Raises ValueError, on the way, for what cannot be read.
    """
    if form == "distillkit":
        from fusion.sources.importers.distillkit import read_distillkit

        return read_distillkit(files, codec)
    if form == "megatron":
        from fusion.sources.importers.megatron import read_megatron

        return read_megatron(files, tokens)
    from fusion.sources.importers.jsonl import read_jsonl, read_vllm

    return read_vllm(files) if form == "vllm" else read_jsonl(files)


def _files(place: Path, ending: str) -> list[Path]:
    files = sorted(place.glob(f"*{ending}")) if place.is_dir() else [place]
    if not files or not files[0].exists():
        raise ValueError(f"{place} is no file" + (f" and holds none that end in {ending}." if place.is_dir() else "."))
    return files
