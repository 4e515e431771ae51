"""The rows that a source left of the training data, for those who look at them afterwards."""

from __future__ import annotations

from fusion.cache import Cache
from fusion.stages.context import RunContext


def source_cache(context: RunContext, name: str) -> Cache:
    """Open the cache of a source. Raises ValueError where there is none: with the reason, where the run needs none."""
    if name not in context.extracted_models:
        raise ValueError(
            f"source {name} has not read the training data of run {context.config.name}, for no objective learns what it "
            "predicts: give objectives one that does, such as forward_kl, and run `fusion extract`."
        )
    return Cache(context.config.folder / "cache" / name)
