"""A finished model on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fusion.extras.hub import Pushed, PushSettings, push_folder

if TYPE_CHECKING:
    from fusion.api.runs import Run  # which imports all that a run needs


def push(
    run: Run | str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    report: bool = True,
    delete_others: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Upload a finished run's model, tokenizer, card and report, or a merged model, to a hub, and return what was done.

    All files are one commit, so that nobody loads half a model; what has arrived is not sent again by another call. The token
    is that of the environment (`HF_TOKEN`) or of `hf auth login`; the hub is huggingface.co, or the one in `HF_ENDPOINT`.

    Args:
        run: What `run` returned, its folder, or the folder of a merged model.
        repo: `OWNER/NAME`, which is made if it does not exist.
        private: Make a new repository private.
        revision: The branch, made if it does not exist; the main one, if not said.
        message: Of the commit.
        report: Whether the report goes too; it shows held-out questions with answers.
        delete_others: Delete what else is in the repository.
        dry_run: Check the files and list them; nothing is asked of the hub.

    Raises:
        ValueError: Where the model is not finished, damaged or holds a secret, or would be mixed with another one there.
        PermissionError: Where there is no token, or it may not write there.
        ConnectionError: Where the hub or the network failed; another call goes on.
    """
    folder = Path(run) if isinstance(run, (str, Path)) else run.folder
    settings = PushSettings(
        private=private,
        revision=revision,
        message=message,
        report=report,
        delete_others=delete_others,
        dry_run=dry_run,
    )
    return push_folder(folder, repo, settings)
