"""Importers of other programs' logit dumps: files are read as sequences, and sequences matched to the examples of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from fusion.sources.importers.matching import match_to_examples
from fusion.sources.importers.sequence import ImportedSequence
from fusion.sources.listed import check_numbers

ImportFormat = Literal["distillkit", "megatron", "vllm", "jsonl"]

FILE_SUFFIXES: dict[ImportFormat, str] = {
    "distillkit": ".parquet",
    "megatron": ".tar",
    "vllm": ".jsonl",
    "jsonl": ".jsonl",
}

__all__ = ["FILE_SUFFIXES", "ImportFormat", "ImportedSequence", "find_files", "match_to_examples", "read_sequences"]


def find_files(form: ImportFormat, paths: Sequence[Path]) -> list[Path]:
    """Return the files of `paths`, and of folders those of this format by name. Raises ValueError for absent ones."""
    return [file for path in paths for file in _files(path, FILE_SUFFIXES[form])]


def read_sequences(
    form: ImportFormat, files: Sequence[Path], codec: Path | None = None, tokens: Path | None = None
) -> Iterator[ImportedSequence]:
    """Yield the sequences of the files. `codec` is for distillkit, `tokens` for megatron; see there.

    Raises ValueError, while iterating, for what cannot be read, and for numbers that are no log-probabilities.
    """
    for sequence in _read(form, files, codec, tokens):
        check_numbers(sequence.about_tokens())
        yield sequence


def _read(
    form: ImportFormat, files: Sequence[Path], codec: Path | None, tokens: Path | None
) -> Iterator[ImportedSequence]:
    if form == "distillkit":
        from fusion.sources.importers.distillkit import read_distillkit

        return read_distillkit(files, codec)
    if form == "megatron":
        from fusion.sources.importers.megatron import read_megatron

        return read_megatron(files, tokens)
    from fusion.sources.importers.jsonl import read_jsonl, read_vllm

    return read_vllm(files) if form == "vllm" else read_jsonl(files)


def _files(path: Path, suffix: str) -> list[Path]:
    files = sorted(path.glob(f"*{suffix}")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise ValueError(f"{path} is no file" + (f" and holds none that end in {suffix}." if path.is_dir() else "."))
    return files
