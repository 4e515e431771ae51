"""Room on a disk: whether something fits before it is written, and what is missing when the disk is full after all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT}


def gigabytes(count: int) -> str:
    """Return bytes in words: `12.3 GB`, `0.123 GB`; what is less than a hundredth of a GB with all its digits."""
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e9:.3f} GB"
        if count >= 1e7
        else f"{count / 1e9:.9f} GB"
    )


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise OSError where `what`, which takes `needed` bytes and is to be written to `folder`, does not fit on its disk.

    What an earlier process has written into the folder counts as there.
    """
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    disk = shutil.disk_usage(place)
    remaining = needed - written_bytes(folder)
    if remaining > disk.free and disk.total:  # some network disks know no sizes: 0 of 0
        raise OSError(_sentence(folder, needed, what) + " Free some, or choose another place.")


@contextmanager
def explaining_full_disk(folder: Path, needed: int, what: str, way_out: str) -> Iterator[None]:
    """Raise OSError with what is needed, free and missing, where the disk of `folder` is full while the body writes there."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        full = "The quota" if error.errno == errno.EDQUOT else "The disk"
        raise OSError(f"{full} is full. {_sentence(folder, needed, what)} {way_out}") from error


def written_bytes(folder: Path) -> int:
    """Return what the files below a folder take on the disk; 0 where there is none. Holes take nothing."""
    return sum(_allocated(file) for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def _allocated(file: Path) -> int:
    status = file.stat()
    return getattr(status, "st_blocks", status.st_size // 512) * 512


def _sentence(folder: Path, needed: int, what: str) -> str:
    place = next(parent for parent in folder.parents if parent.exists())
    free, written = shutil.disk_usage(place).free, written_bytes(folder)
    begun = f", of which {gigabytes(written)} are written" if written else ""
    missing = max(0, needed - written - free)
    return f"{place} has {gigabytes(free)} free, {what} takes {gigabytes(needed)}{begun}: {gigabytes(missing)} are missing."
