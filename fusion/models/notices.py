"""What loading and generating have to say besides their results, each thing once."""

from __future__ import annotations

import functools
import logging

logger = logging.getLogger(__name__)


@functools.cache
def mention_once(message: str) -> None:
    """Write a message to the log, unless this process has written the same one before."""
    logger.warning(message)
