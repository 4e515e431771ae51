"""Force files to the disk, so that after a power cut nothing that was called done is empty."""

from __future__ import annotations

import errno
import os
from pathlib import Path

NOT_SYNCED = {errno.EINVAL, errno.ENOTSUP}
"""What a file system answers that does not sync folders."""


def sync_folder(folder: Path) -> None:
    """Force every file below `folder` to the disk, and then the folders, which hold the files' names."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(path, name))
        sync(Path(path))


def sync(path: Path) -> None:
    """Force one file or folder to the disk. Raises OSError where the disk refuses its contents."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not listed; on Windows any folder
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NOT_SYNCED:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


def write_synced(file: Path, text: str) -> None:
    """Write a text so that `file` is whole and on disk, or not there, whenever the power goes."""
    aside = file.with_name(f".{file.name}.part")
    aside.write_text(text)
    sync(aside)
    aside.replace(file)
    sync(file.parent)
