"""`LogitRows` on disk: bound to what made them, free of order, batch size and number of processes."""

from fusion.cache.shard_claims import write_missing_shards
from fusion.cache.store import Cache, CacheWriter, full_key

__all__ = ["Cache", "CacheWriter", "full_key", "write_missing_shards"]
