"""`LogitRows` on disk: bound to what made them, free of order, batch size and number of processes."""

from fusion.cache.shard_claims import fill
from fusion.cache.store import Cache, Writer, full_key

__all__ = ["Cache", "Writer", "fill", "full_key"]
