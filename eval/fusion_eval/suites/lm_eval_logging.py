"""The log level of lm-eval, for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lm_eval_log_level(level: int) -> Iterator[None]:
    """Let lm-eval log nothing below `level` (of `logging`) inside the context."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
