"""Whether what was finished is still what was written: every byte of a run, a cache, a merged model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fusion.cache import Cache
from fusion.core.text_files import read_object
from fusion.merging.files import merge_record
from fusion.runtime.artifacts import DONE, FILES, find_damage
from fusion.runtime.file_states import damaged_files
from fusion.training.checkpoint import FILES as CHECKPOINT_FILES
from fusion_eval.results import Result

FUSED = "fusion.json"
PAUSE = 0.5
"""Seconds between two looks at what seems to be damaged."""


@dataclass(frozen=True)
class Verified:
    """One finished thing, and what is wrong with it."""

    kind: str
    path: Path
    problems: tuple[str, ...]
    """A sentence for each damaged file; none where all is as it was written."""


def verify(path: Path) -> list[Verified]:
    """Check everything below `path` that is marked as finished: trainings, responses, caches, checkpoints, merges, results,
    those of rounds too.

    What is not finished has no mark and is not looked at. Raises FileNotFoundError for no such folder, and ValueError where
    nothing below it is marked.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}. Give a run, a cache or a merged model.")
    found = [
        Verified(kind, mark.parent.relative_to(path), tuple(_problems(check, mark)))
        for kind, pattern, check in CHECKS
        for mark in _marks(path, pattern)
    ]
    if not found:
        raise ValueError(f"Nothing below {path} is marked as finished; is it a run, a cache or a merged model?")
    return found


def _marks(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder that match, also while folders come and go, and not those that were set aside."""
    found = [
        Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names
    ]  # into a store
    return sorted(file for file in found if file.match(pattern) and not _is_aside(file.relative_to(folder)))


def _is_aside(file: Path) -> bool:
    return any(part.startswith(("damaged-", ".")) for part in file.parts)


def _problems(check: Callable[[Path], Iterator[str]], mark: Path) -> list[str]:
    """What is wrong; looked at twice, for a run that goes on may be deleting an old checkpoint, or writing a result anew."""
    if not _found(check, mark):
        return []
    time.sleep(PAUSE)
    return _found(check, mark) if mark.exists() else []


def _found(check: Callable[[Path], Iterator[str]], mark: Path) -> list[str]:
    try:
        return list(check(mark))
    except (ValueError, OSError) as error:  # of the readers, each of which names the file
        return [str(error)]


def _artifact(mark: Path) -> Iterator[str]:
    yield from find_damage(mark.parent, contents=True).values()


def _cache(mark: Path) -> Iterator[str]:
    Cache(mark.parent).verify()
    yield from ()


def _checkpoint(mark: Path) -> Iterator[str]:
    yield from damaged_files(mark.parent, read_object(mark), contents=True).values()


def _merge(mark: Path) -> Iterator[str]:
    merge_record.refuse_changed_files(mark.parent)
    yield from ()


def _fused(mark: Path) -> Iterator[str]:
    yield from damaged_files(mark.parent, read_object(mark).get(FILES), contents=True).values()


def _result(mark: Path) -> Iterator[str]:
    Result.load(mark)
    yield from ()


def _record(mark: Path) -> Iterator[str]:
    read_object(mark)
    yield from ()


CHECKS: list[tuple[str, str, Callable[[Path], Iterator[str]]]] = [
    ("run", "run.json", _record),
    ("artifact", DONE, _artifact),
    ("cache", "manifest.json", _cache),
    ("checkpoint", f"checkpoint-*/{CHECKPOINT_FILES}", _checkpoint),
    ("merged model", merge_record.FILE_NAME, _merge),
    ("fused model", FUSED, _fused),
    ("result", "heldout.json", _result),
    ("kept round", "rounds/kept.json", _record),
]
"""What is verified: its kind, the file that marks it, and how."""
