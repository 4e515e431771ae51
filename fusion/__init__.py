"""Fuse several language models, each with its own tokenizer, into one better model.

`fusion.run("quickstart")` does the whole thing; `fusion.pipeline` tells how. Importing this costs nothing: names are loaded
when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusion.cache import Cache
    from fusion.config import Config
    from fusion.config.loading import load
    from fusion.core.rows import LogitRows, Pairs
    from fusion.pipeline import run

__version__ = "0.1.0"
__all__ = ["Cache", "Config", "LogitRows", "Pairs", "load", "run"]

_HOME = {
    "Cache": "fusion.cache",
    "Config": "fusion.config",
    "LogitRows": "fusion.core.rows",
    "Pairs": "fusion.core.rows",
    "load": "fusion.config.loading",
    "run": "fusion.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module fusion has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)
