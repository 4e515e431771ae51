"""From a path to rows: one file, a folder, a pattern, or a data set on the hub, and the part of it that a split names."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from fusion.data.reading.arrow_files import dataset_rows, read_parquet, read_saved
from fusion.data.reading.csv_files import read_csv
from fusion.data.reading.json_files import read_json, read_json_lines
from fusion.data.reading.row import Row
from fusion.data.reading.streams import COMPRESSED, format_suffix

READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
"""What reads a file, by the suffix of its format."""

_SAVED = ("dataset_info.json", "dataset_dict.json")
_NAMED = re.compile(r"^(\w+?)(?:[-_.]|$)")


FORMATS = ("json", "csv", "parquet", "text", "arrow", "pandas", "xml", "webdataset", "imagefolder", "audiofolder")
"""What `load_dataset` takes beside `data_files`; here they would read whatever lies in the working directory."""


def is_hub_id(path: str) -> bool:
    """Return whether a path is a hub id: it looks like no file or folder, and none is there."""
    if path.startswith((".", "/", "~")) or format_suffix(path) in READERS or glob.has_magic(path):
        return False
    return not Path(path).exists()


def read_rows(
    path: str, *, name: str | None = None, split: str = "train", revision: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a file, folder, pattern of files, or data set on the hub, in order.

    `split` is a name or a part of one, as datasets writes it: `train[:100]`, `train[10%:20%]`, `train[:5]+train[-5:]`. Raises
    FileNotFoundError for what is not there, ValueError for what cannot be read or has no such split.
    """
    if is_hub_id(path):
        yield from _hub_rows(path, name, split, revision)
        return
    names = list(dict.fromkeys(part.split("[")[0].strip() for part in split.split("+")))
    if len(names) == 1 and split == names[0]:
        yield from _split_rows(path, split)
        return
    splits = {each: list(_split_rows(path, each)) for each in names}
    for each, begin, end in _parts(split, {each: len(rows) for each, rows in splits.items()}, path):
        yield from splits[each][begin:end]


def find_files(path: str, split: str = "train") -> list[Path]:
    """Return the data files that a path names. Raises FileNotFoundError where there is none, ValueError for other files."""
    place = Path(path).expanduser()
    if glob.has_magic(path) and not place.exists():
        return _readable([Path(each) for each in sorted(glob.glob(str(place), recursive=True))], path, split)  # noqa: PTH207  (Path.glob takes no absolute pattern)
    if place.is_dir():
        return _readable([file for file in sorted(place.iterdir()) if format_suffix(file) in READERS], path, split)
    if not place.exists():
        raise FileNotFoundError(f"The data file {path} does not exist (looked in {place.parent.absolute()}).")
    return _readable([place], path, split)


def is_saved(path: str) -> bool:
    """Return whether a path is a folder that datasets wrote with save_to_disk."""
    return any((Path(path).expanduser() / name).is_file() for name in _SAVED)


def _split_rows(path: str, split: str) -> Iterator[Row]:
    if is_saved(path):
        return read_saved(Path(path).expanduser(), split)
    return chain.from_iterable(READERS[format_suffix(file)](file) for file in find_files(path, split))


def _readable(files: list[Path], path: str, split: str) -> list[Path]:
    """Return the files of a split. Raises where there are none, or one that is no data file."""
    if not files:
        raise FileNotFoundError(f"{path} names no data file; data files end in {_endings()}.")
    if other := [file for file in files if format_suffix(file) not in READERS or not file.is_file()]:
        what = "is no file" if not other[0].is_file() else f"ends in {other[0].suffix or 'nothing'}"
        raise ValueError(f"{other[0]} {what}; data files end in {_endings()}.")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file) if len(files) > 1 else "train", []).append(file)
    if split not in by_split:
        raise ValueError(
            f"{path} has no split {split!r}; it has {', '.join(sorted(by_split))}. A single file is `train`."
        )
    return by_split[split]


def _endings() -> str:
    return f"{', '.join(READERS)} (and may be compressed: {', '.join(COMPRESSED)})"


def _split_of(file: Path) -> str:
    """Return the split that a file's name begins with, as on the hub; files of other names are `train`."""
    name = _NAMED.match(file.name)
    known = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}
    return known.get(name[1].lower() if name else "", "train")


def _parts(split: str, sizes: dict[str, int], path: str) -> Iterator[tuple[str, int, int]]:
    """Yield the split and the rows, from and to, of each part that `split` names."""
    from datasets import ReadInstruction

    try:
        for part in ReadInstruction.from_spec(split).to_absolute(sizes):
            yield part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to
    except (AssertionError, ValueError) as error:
        raise ValueError(
            f"{path}: split {split!r} cannot be read ({error}). Write it as datasets does: train[:100], train[10%:20%]."
        ) from error


def _hub_rows(path: str, name: str | None, split: str, revision: str | None) -> Iterator[Row]:
    if path in FORMATS:
        raise ValueError(
            f"{path} is a format of datasets and no data set; give the file itself as path, such as data/train.{path}."
        )
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        data = load_dataset(path, name, split=split, revision=revision)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:  # as datasets says that it cannot
        asked = ", ".join(
            f"{key} {value}" for key, value in {"name": name, "split": split, "revision": revision}.items() if value
        )
        why = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(
            f"{path} ({asked}): no file or folder has that name here, and datasets cannot read it from the hub: {why}."
        ) from error
    return dataset_rows(data, path)
