"""One commit with a whole model, or none: what is there is added to, and never mixed with another model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from fusion.extras.hub.repository import BranchContents, HubRepository, checked_name
from fusion.extras.hub.upload_files import collect_files, is_loaded_with_a_model
from fusion.runtime.console import draws_bars, show

KEPT = ".gitattributes"
"""The hub's own file."""


@dataclass(frozen=True)
class Pushed:
    """What an upload did, or would do."""

    url: str | None
    """The page of the repository; None where nothing was uploaded."""
    files: dict[str, int]
    """Bytes of each file, by its name in the repository."""
    left: tuple[str, ...] = ()
    """Files of the model's folder that stay here."""
    replaced: tuple[str, ...] = ()
    """Files that were there and have other contents now."""
    deleted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Files of the repository that are none of these."""


@dataclass(frozen=True)
class PushSettings:
    """How to upload."""

    private: bool = False
    """Make a new repository private."""
    revision: str | None = None
    """The branch; the main one, if not said."""
    message: str | None = None
    """Of the commit."""
    report: bool = True
    """Whether the report of a run goes too."""
    delete_others: bool = False
    """Delete what else is in the repository."""
    dry_run: bool = False
    """Check the files and list them; nothing is asked of the hub."""


def push_folder(folder: Path, repo: str, settings: PushSettings) -> Pushed:
    """Upload a finished run's model and report, or a model of ours, to the repository `repo`, as one commit.

    Raises ValueError where the model may not go (see `collect_files`), where a public repository is there and a private one is
    asked for, or where files there would be loaded together with the model; PermissionError and ConnectionError for what the
    hub answers.
    """
    checked_name(repo)
    files = collect_files(folder, report=settings.report)
    if settings.dry_run:
        return Pushed(None, files.sizes, files.left)
    repository = HubRepository(repo, settings.revision)
    before = _prepared(repository, private=settings.private)
    others = tuple(sorted(before.oids.keys() - files.paths.keys() - {KEPT}))
    if not settings.delete_others:
        _refuse_mixture(repository, others)
    additions = [CommitOperationAdd(name, path) for name, path in files.paths.items()]
    _send(additions, repository, files.sizes)
    replaced = tuple(sorted(file.path_in_repo for file in additions if _replaces(file, before)))
    deletions = [CommitOperationDelete(name) for name in others if settings.delete_others]
    message = settings.message or f"Upload {folder.resolve().name} with fusion push"
    repository.commit([*additions, *deletions], message, before.commit)
    ends = {"deleted": others} if settings.delete_others else {"kept": others}
    return Pushed(repository.url, files.sizes, files.left, replaced, **ends)


def _prepared(repository: HubRepository, *, private: bool) -> BranchContents:
    """The branch to write to, which is made where it does not exist."""
    main = repository.find(None)
    if main is not None and private and not main.private:
        raise ValueError(
            f"{repository.name} exists and is public; --private is for new repositories. Make it private in its settings on "
            "the hub, or give another name."
        )
    if main is None:
        repository.create(private=private)
    found = repository.find(repository.branch)
    if found is None and repository.branch is not None:
        repository.create_branch()
        found = repository.find(repository.branch)
    return found or BranchContents("", private, {})


def _refuse_mixture(repository: HubRepository, others: Sequence[str]) -> None:
    """Old weights or a chat template beside the new ones would be loaded with them, or instead of them."""
    if mixed := [name for name in others if is_loaded_with_a_model(name)]:
        raise ValueError(
            f"{repository.url} holds {', '.join(mixed)} of another model, which would be loaded with this one. Give another "
            "repository or --revision, or delete what is not of this model with --delete-others."
        )


def _send(additions: Sequence[CommitOperationAdd], repository: HubRepository, sizes: Mapping[str, int]) -> None:
    """One after the other, so that what arrived before the network went is whole."""
    with _bars_of_the_client():
        for number, file in enumerate(additions, 1):
            name = file.path_in_repo
            show([f"  {number} of {len(additions)}  {name}  {megabytes(sizes[name])}"])
            repository.send(file)


def _replaces(file: CommitOperationAdd, before: BranchContents) -> bool:
    """Whether other contents were there: by SHA256 in large file storage, else by git's SHA1."""
    there = before.oids.get(file.path_in_repo)
    if there is None or len(there) == 64:
        return there not in (None, file.upload_info.sha256.hex())
    content = Path(str(file.path_or_fileobj)).read_bytes()
    return there != hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def megabytes(count: int) -> str:
    """Return bytes in words, such as `1,234.567 MB`."""
    return f"{count / 1e6:,.3f} MB"


@contextmanager
def _bars_of_the_client() -> Iterator[None]:
    """The client draws bars of the bytes of a file: on a terminal, and not into a log."""
    disabled = are_progress_bars_disabled()
    if not draws_bars():
        disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            enable_progress_bars()
