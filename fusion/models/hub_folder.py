"""The folder of a model that is named by its hub id: in the hub's cache, where it is downloaded to if it is not there."""

from __future__ import annotations

import functools
import re
from pathlib import Path

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
READ = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py", "*.md", "LICENSE*"]
"""Files of a model that a merge reads or hands on; weights in other formats are not among them."""
IGNORED = ["original/*", "consolidated*", "onnx/*"]
"""The same weights once more, as some repositories have them."""


def hub_folder(path: Path) -> Path:
    """Return the folder of a model: `path`, or, where that is not there and reads as a hub id, its folder in the hub's cache.

    Raises FileNotFoundError where it is neither here nor to be had from the hub.
    """
    if path.exists() or not HUB_ID.fullmatch(path.as_posix()):
        return path
    return _downloaded(path.as_posix())


@functools.cache
def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=READ, ignore_patterns=IGNORED))
    except (OSError, ValueError) as error:  # what the hub raises where there is no such model, no connection, no access
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FileNotFoundError(
            f"{name} is no folder here, and as a hub id it could not be read: {reason} Check the name, or download it where "
            f"there is a connection (hf download {name} --local-dir FOLDER) and name that FOLDER."
        ) from error
