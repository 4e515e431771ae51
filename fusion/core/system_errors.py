"""Errors of the operating system, with the place they are about: a read or write that fails names no file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUST_ERROR = re.compile(r"I/?O ?error.*\(os error (\d+)\)", re.IGNORECASE | re.DOTALL)
"""How safetensors passes on what the system refused."""
TORCH_ERROR = re.compile("inline_container|PytorchStreamWriter|iostream error")
"""How torch.save does, without saying why."""


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Name `place` in the errors of a full or broken disk while the body reads or writes there, whichever library meets them.

    Raises OSError for what the system refused: a read or write names no file, and libraries in Rust and C++ have errors of
    their own.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.strerror is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(place)) from error
    except Exception as error:
        if found := RUST_ERROR.search(str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(place)) from error
        if isinstance(error, RuntimeError) and TORCH_ERROR.search(str(error)):
            raise OSError(
                f"{place}: torch could not write a file there. Is the disk full? Free some space, and run the same command "
                "again: what was finished is kept."
            ) from error
        raise
