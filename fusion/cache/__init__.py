"""Caches of `LogitRows` on disk, by example id; independent of data order, batch size and number of processes.

`CacheWriter` with `write_missing_shards` fills a folder, `Cache` reads it example by example.
"""

from fusion.cache.shard_claims import write_missing_shards
from fusion.cache.store import Cache, CacheWriter, full_key

__all__ = ["Cache", "CacheWriter", "full_key", "write_missing_shards"]
