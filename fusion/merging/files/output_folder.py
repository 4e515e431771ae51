"""The folder of a merged model: looked at before anything is read, locked, filled aside, and made visible when it is whole.

A folder that does not exist yet appears by a rename. One that does (empty, perhaps a mount point or where somebody stands)
stays the folder it is: the model is written into `.merge.partial` within, and its files are moved up when all are there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fusion.merging.adapters.model_reference import split_reference
from fusion.merging.files import merge_record
from fusion.merging.files.checkpoint_writer import JOURNAL
from fusion.runtime.locks import exclusive
from fusion.runtime.syncing import sync, sync_folder

LAST_FILES = ("config.json", merge_record.FILE_NAME)
"""What makes a folder a model, and a model a merge that is complete: these appear after all others."""
BEGUN = (JOURNAL, merge_record.FILE_NAME)
"""One of these is in every folder that a merge has begun."""
TRIAL = "candidate"
"""Part of every name in the folder of a search."""
NAME_BYTES = 255
"""The longest name of a file that file systems take."""


@dataclass(frozen=True)
class OutputFolder:
    """Where a merged model goes; see `find`."""

    folder: Path
    """Without links, `.` and `..`."""
    existed: bool
    """Whether it was there when it was found."""

    @staticmethod
    def find(out: Path, inputs: Sequence[Path]) -> OutputFolder:
        """Look at `out`, following links, without writing anything. `inputs` are folders, or MODEL+ADAPTER.

        Raises FileExistsError where it is a file, or a folder with contents that no merge has written; ValueError where it
        is one of the inputs, lies in one or holds one.
        """
        folder = Path(os.path.realpath(out))
        output = OutputFolder(folder, _is_folder(out, folder))
        _refuse_inputs(output, out, inputs)
        if output.existed and not output.has_result:
            output._refuse_other_contents()
        return output

    @property
    def has_result(self) -> bool:
        """Whether a merge has been written there, complete."""
        return (self.folder / merge_record.FILE_NAME).is_file()

    @property
    def partial(self) -> Path:
        """Where the model lies while it is written, on the same file system."""
        return self.hidden("partial")

    @property
    def trial(self) -> Path:
        """Where a search puts the merge that it is trying."""
        return self.hidden("trial") / TRIAL

    def hidden(self, purpose: str) -> Path:
        """A path for what is not the result: within the folder if that existed, beside it otherwise."""
        if self.existed:
            return self.folder / f".merge.{purpose}"
        name = f".{self.folder.name}.{purpose}"
        if len(os.fsencode(name)) > NAME_BYTES:
            name = f".{hashlib.sha256(os.fsencode(self.folder.name)).hexdigest()[:16]}.{purpose}"
        return self.folder.with_name(name)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other merges and searches out. A result that is there is only looked at, which needs no lock.

        Raises BlockingIOError, naming the process, where one writes there.
        """
        if not self.has_result:
            return exclusive(self.hidden("lock"), str(self.folder))
        for lock in (self.hidden("lock"), replace(self, existed=False).hidden("lock")):
            if lock.exists():  # of a process that was killed when it had made the result
                with suppress(OSError), exclusive(lock, str(self.folder)):
                    pass
        return nullcontext()

    @property
    def is_written(self) -> bool:
        """Whether an earlier merge has written all of a result into `partial` and could not make it visible."""
        return (self.partial / merge_record.FILE_NAME).is_file()

    def is_unpublished(self, record: dict[str, Any]) -> bool:
        """Whether what `is_written` is the result of the merge that `record` describes, whole."""
        return merge_record.is_unpublished(self.partial, self.folder, record)

    def publish(self) -> None:
        """Make the complete model in `partial` the result, durably. Nothing is removed where the system refuses that."""
        (self.partial / JOURNAL).unlink(missing_ok=True)
        sync(self.partial)
        try:
            if self.existed:
                self._move_up()
            else:
                self.partial.rename(self.folder)
        except OSError as error:
            raise OSError(
                f"The merged model is whole, in {self.partial}, but could not be moved to {self.folder}: {error.strerror}. "
                "Mend that and run the same command again, or move it yourself."
            ) from error
        sync(self.folder.parent)

    def discard_partial(self) -> None:
        """Remove what a merge has begun and cannot go on with. Raises FileExistsError where it is no merge's."""
        _remove(self.partial, lambda names: not names or not names.isdisjoint(BEGUN), last=BEGUN)

    def discard_trial(self) -> None:
        """Remove what a search has merged to try it. Raises FileExistsError where it is no search's."""
        _remove(self.hidden("trial"), lambda names: all(TRIAL in name for name in names))

    def _move_up(self) -> None:
        """Move the files into the folder; a kill in between leaves no config.json, and the next merge goes on."""
        files = [str(file.relative_to(self.partial)) for file in self.partial.rglob("*") if file.is_file()]
        for name in sorted(files, key=lambda name: (LAST_FILES.index(name) if name in LAST_FILES else -1, name)):
            target = self.folder / name
            target.parent.mkdir(exist_ok=True)
            if name in LAST_FILES:  # the others are on disk under their names before
                sync_folder(self.folder)
            (self.partial / name).replace(target)
        sync(self.folder)
        shutil.rmtree(self.partial)

    def _refuse_other_contents(self) -> None:
        ours = {self.hidden(purpose).name for purpose in ("partial", "trial", "lock")}
        begun = merge_record.written_files(self.partial)  # some of them have been moved up when a merge was killed
        ours |= {Path(name).parts[0] for name in begun} | {"lost+found"}
        if others := sorted({entry.name for entry in self.folder.iterdir()} - ours):
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise FileExistsError(
                f"{self.folder} is not empty and was not made by a merge: it holds {others[0]}{more}; give another folder."
            )


def _is_folder(out: Path, folder: Path) -> bool:
    """Whether the folder is there. Raises FileExistsError where something else is, or a file on the way."""
    try:
        mode = folder.lstat().st_mode
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        file = next(parent for parent in folder.parents if parent.exists())
        raise FileExistsError(f"{out} cannot be made: {file} is a file; name another folder.") from None
    if stat.S_ISLNK(mode):
        raise FileExistsError(f"{out} is a link that leads back to itself; name a folder that does not exist yet.")
    if not stat.S_ISDIR(mode):
        raise FileExistsError(f"{out} is a file; name a folder that does not exist yet.")
    return True


def _refuse_inputs(output: OutputFolder, out: Path, inputs: Sequence[Path]) -> None:
    """Raise ValueError where an input and `out` are one folder or one holds the other, whatever they are called."""
    way_out = "name a folder outside of all inputs"
    own = {_identity(path) for path in (output.folder, output.partial, output.hidden("trial"))} - {None}
    around = {_identity(path) for path in output.folder.parents}
    for model in [folder for reference in inputs for folder in split_reference(reference) if folder is not None]:
        identity = _identity(model)
        if identity in own:
            raise ValueError(f"The output {out} is the input {model}, or where it is written aside; {way_out}.")
        if identity in around - {None}:
            raise ValueError(f"The output {out} lies in the input {model}; {way_out}.")
        if not own.isdisjoint(map(_identity, Path(os.path.realpath(model)).parents)):
            raise ValueError(f"The output {out} holds the input {model}; {way_out}.")


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one folder have in common, through links, mounts and letter cases; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove(folder: Path, is_ours: Callable[[set[str]], bool], last: Sequence[str] = ()) -> None:
    """Remove a folder with what is in it, `last` after all else, so that what is left by a kill is known again."""
    if not os.path.lexists(folder):
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() and not folder.is_symlink() else {""}
    if not is_ours(names):
        raise FileExistsError(f"{folder} is in the way, and no merge has made it; move it away.")
    for name in sorted(names, key=lambda name: (name in last, name)):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()
