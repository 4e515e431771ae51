"""`LogitRows` on disk: bound to what made them, free of order, batch size and number of processes."""

from fusion.cache.claim import fill
from fusion.cache.store import Cache, Writer

__all__ = ["Cache", "Writer", "fill"]
