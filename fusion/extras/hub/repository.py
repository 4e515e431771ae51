"""A repository on a hub: what it holds, and what goes wrong there, as a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from fusion.core.secrets import hide

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LONGEST_NAME = 96
STATUS_IN_XET = re.compile(r"HTTP status \w+ error \((\d{3})")
"""How the client for large files passes on what a server answers."""
COMMIT = re.compile(r"[0-9a-f]{40}")
AGAIN = "Run the same command again: large files that arrived are not sent twice, and nothing changes there until all are in."


CommitOperation = CommitOperationAdd | CommitOperationDelete


@dataclass(frozen=True)
class BranchContents:
    """A branch as it is."""

    commit: str
    private: bool
    oids: dict[str, str]
    """By name, what git calls each file's content; SHA256 for one in large file storage."""


class HubRepository:
    """OWNER/NAME on the hub that HF_ENDPOINT names, written to with the token of the environment or of `hf auth login`."""

    def __init__(self, name: str, branch: str | None = None):
        """Check the name. Raises ValueError for a wrong one, PermissionError where there is no token."""
        self.name, self.branch = checked_name(name), branch
        if branch is not None and COMMIT.fullmatch(branch):
            raise ValueError(f"--revision {branch} is a commit, which cannot change: give a branch.")
        self.token = get_token()
        if not self.token:
            raise PermissionError(
                "There is no token to upload with. Export one with write access as HF_TOKEN, or log in with `hf auth login`."
            )
        self.api = HfApi(token=self.token)

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.api.endpoint}/{self.name}" + (f"/tree/{self.branch}" if self.branch else "")

    def find(self, branch: str | None) -> BranchContents | None:
        """Return what the repository holds on a branch, its main one if none is said; None where that does not exist."""
        with self._errors_as_sentences():
            try:
                info = self.api.model_info(self.name, revision=branch, files_metadata=True)
            except HfHubHTTPError as error:
                if error.response.status_code == 404:
                    return None
                raise
        oids = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id or "" for file in info.siblings or []}
        return BranchContents(info.sha or "", bool(info.private), oids)

    def create(self, *, private: bool) -> None:
        """Make the repository: private, or what its owner's settings say, which mostly is public."""
        with self._errors_as_sentences():
            self.api.create_repo(self.name, private=True if private else None, exist_ok=True)

    def create_branch(self) -> None:
        """Make the branch, which begins with what the main one holds."""
        assert self.branch is not None
        with self._errors_as_sentences():
            self.api.create_branch(self.name, branch=self.branch, exist_ok=True)

    def send(self, file: CommitOperationAdd) -> None:
        """Upload a large file, unless it is there; a small one goes with the commit."""
        with self._errors_as_sentences():
            self.api.preupload_lfs_files(
                self.name,
                [file],
                revision=self.branch,
                free_memory=False,
                gitignore_content="",  # that of the repository would leave files out without a word
            )

    def commit(self, operations: Sequence[CommitOperation], message: str, parent: str) -> None:
        """Make all operations one commit on `parent`: what somebody else commits meanwhile is not overwritten."""
        with self._errors_as_sentences():
            self.api.create_commit(
                self.name, operations, commit_message=message, revision=self.branch, parent_commit=parent or None
            )

    @contextmanager
    def _errors_as_sentences(self) -> Iterator[None]:
        """Raise PermissionError, ConnectionError or ValueError with a sentence for what the hub and its client raise.

        The token is in none of them. What the system refuses about a file here is passed on.
        """
        try:
            yield
        except Exception as error:
            told = self._told(_cause(error))
            if told is None:
                raise
            raise type(told)(hide(str(told), self.token)) from error

    def _told(self, error: BaseException) -> Exception | None:
        hub, said = self.api.endpoint, " ".join(str(error).split())
        if isinstance(error, OfflineModeIsEnabled):
            return ConnectionError("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so nothing is uploaded. Unset it.")
        if isinstance(error, HfHubHTTPError):
            return self._refusal(error.response.status_code, " ".join((error.server_message or "").split()))
        if found := STATUS_IN_XET.search(said):
            return self._refusal(int(found[1]), said)
        if isinstance(error, OSError) and error.filename is not None:
            return None  # of a file here, and the system says which
        if isinstance(error, (json.JSONDecodeError, KeyError, TypeError)):  # of an answer that its client cannot read
            return ConnectionError(
                f"What {hub} answers is not a hub's. Is HF_ENDPOINT right, and the network free of a login page?"
            )
        if isinstance(error, PermissionError):
            return PermissionError(f"The token may not write to {self.name} on {hub} ({said}).")
        if isinstance(error, ValueError):
            return ValueError(f"{hub} does not take this for {self.name}: {said}")
        if isinstance(error, (OSError, RuntimeError)) or _is_of_network(error):
            return ConnectionError(f"The connection to {hub} failed ({type(error).__name__}: {said}). {AGAIN}")
        return None

    def _refusal(self, status: int, reason: str) -> Exception:
        hub, because = self.api.endpoint, f": {reason}" if reason else ""
        if status == 401:
            return PermissionError(
                f"{hub} does not accept the token (401{because}). Export a valid one as HF_TOKEN, or run `hf auth login`."
            )
        if status == 403:
            return PermissionError(
                f"The token may not write to {self.name} on {hub} (403{because}). Take one with write access there, or another "
                "repository."
            )
        if status == 404:
            return ValueError(f"{hub} knows no {self.name} (404{because}). Is its owner spelled right?")
        if status in (409, 412):
            return ConnectionError(f"{self.name} was changed by somebody else meanwhile ({status}{because}). {AGAIN}")
        if status == 429 or status >= 500:
            return ConnectionError(f"{hub} failed ({status}{because}). {AGAIN}")
        return ValueError(f"{hub} does not take this for {self.name} ({status}{because}).")


def checked_name(name: str) -> str:
    """Return the name of a repository. Raises ValueError where no hub takes it."""
    wrong = not NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".", "-"))
    if wrong or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{name!r} is no name of a repository: give OWNER/NAME, such as my-org/my-model, of letters, digits, '-', '_' "
            f"and '.', {LONGEST_NAME} at most."
        )
    return name


def _cause(error: BaseException) -> BaseException:
    """What the client's own `Error while uploading ...` is about."""
    inner = error.__cause__
    return error if inner is None or isinstance(error, HfHubHTTPError) or type(error) is not RuntimeError else inner


def _is_of_network(error: BaseException) -> bool:
    return any(base.__module__.startswith("httpx") for base in type(error).__mro__)
