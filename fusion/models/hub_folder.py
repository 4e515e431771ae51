"""The folder of a model that is named by its hub id: in the hub's cache, where it is downloaded to if it is not there."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from fusion.models.auxiliary_files import DOWNLOADED_PATTERNS

HUB_REFERENCE = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")
"""An id on the hub, and behind @ a revision: a branch, a tag or a commit."""
READ = ["*.safetensors", "*.json", "*.py", "*.md", *DOWNLOADED_PATTERNS]
"""Files of a model that a merge reads or hands on; weights in other formats are not among them."""
IGNORED = ["original/*", "consolidated*", "onnx/*"]
"""The same weights once more, as some repositories have them."""


def is_hub_reference(path: Path) -> bool:
    """Whether a path reads as a hub id, with a revision or without."""
    return HUB_REFERENCE.fullmatch(path.as_posix()) is not None


def hub_folder(path: Path) -> Path:
    """Return the folder of a model: `path`, or, where that is not there and reads as a hub id, its folder in the hub's cache.

    ID@REVISION is the folder of that revision. Raises FileNotFoundError where it is neither here nor to be had from the hub.
    """
    found = HUB_REFERENCE.fullmatch(path.as_posix())
    if path.exists() or found is None:
        return path
    return _downloaded(found["id"], found["revision"])


@functools.cache
def _downloaded(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=READ, ignore_patterns=IGNORED))
    except (OSError, ValueError) as error:  # what the hub raises where there is no such model, no connection, no access
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        written, option = (f"{name}@{revision}", f" --revision {revision}") if revision else (name, "")
        raise FileNotFoundError(
            f"{written} is no folder here, and as a hub id it could not be read: {reason} Check the name, or download it where "
            f"there is a connection (hf download {name}{option} --local-dir FOLDER) and name that FOLDER."
        ) from error
