"""Caches of `LogitRows` on disk, by example id; independent of data order, batch size and number of processes.

`CacheWriter` with `write_missing_shards` fills a folder, `Cache` reads it example by example. `codec` tells how many bytes a
row takes and in which form its numbers are: 39 bytes at K = 10 and 152,064 tokens, `packed` (the default); with `float16`, the
default for whole rows (`top_k: all`), 72 bytes at K = 10, or 2 a log-probability, 4 an id and 12 a row.
"""

from fusion.cache.shard_claims import remove_claims, write_missing_shards
from fusion.cache.store import Cache
from fusion.cache.writer import CacheWriter, full_key

__all__ = ["Cache", "CacheWriter", "full_key", "remove_claims", "write_missing_shards"]
