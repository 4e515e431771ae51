"""Encoded texts in a folder: a file for each array, written a part at a time and read where they are needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fusion.core.text_files import hash_of
from fusion.data.encoding.encoded_texts import DTYPES, Array, EncodedTexts
from fusion.runtime.unfinished import unfinished_path

SIZES = "sizes.json"


def read_texts(folder: Path) -> EncodedTexts | None:
    """Return the texts that lie in `folder`, whose arrays stay in their files; None where they are not there, or not whole."""
    try:
        states = json.loads((folder / SIZES).read_text())
        if states != {name: [states[name][0], hash_of(folder / name)] for name in DTYPES}:
            return None
        arrays = {name: _read_array(folder / name, name) for name in DTYPES}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    whole = all(states[name][0] == len(array) for name, array in arrays.items())
    return EncodedTexts(**arrays) if whole else None


def write_texts(folder: Path, parts: Iterable[EncodedTexts]) -> EncodedTexts:
    """Write the texts of all parts to `folder`, which is whole or absent whoever else may be writing it, and return them.

    No more than one part is held in memory.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_path(folder) as aside:
        aside.mkdir()
        sizes = dict.fromkeys(DTYPES, 0)
        for name in sizes:
            (aside / name).touch()
        for part in parts:
            _append(aside, part, sizes)
        (aside / SIZES).write_text(json.dumps({name: [size, hash_of(aside / name)] for name, size in sizes.items()}))
        try:
            aside.rename(folder)
        except OSError:  # there is something already
            if (kept := read_texts(folder)) is not None:  # another process was quicker
                return kept
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            aside.rename(folder)
    if (kept := read_texts(folder)) is None:
        raise OSError(f"{folder} cannot be read back after it was written. Is the disk in order?")
    return kept


def _append(folder: Path, part: EncodedTexts, sizes: dict[str, int]) -> None:
    arrays = part.arrays() | {"ends": part.ends + sizes["input_ids"]}
    for name, array in arrays.items():
        with (folder / name).open("ab") as file:
            file.write(np.ascontiguousarray(array, DTYPES[name]).tobytes())
        sizes[name] += len(array)


def _read_array(file: Path, name: str) -> Array:
    if not file.exists() or file.stat().st_size == 0:  # which cannot be mapped
        return np.zeros(0, DTYPES[name])
    return np.memmap(file, DTYPES[name], mode="r")
