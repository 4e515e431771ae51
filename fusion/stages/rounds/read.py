"""Reading the texts of a round: sources, the pivot that wrote them, and where it is asked for the pivot before all rounds."""

from __future__ import annotations

import dataclasses

from fusion.cache import Cache, CacheWriter
from fusion.stages.extract import cache_writer, checked_cache, extract_one
from fusion.stages.rounds.context import RoundContext

REFERENCE = "reference"


def readers(context: RoundContext) -> list[str]:
    """Names of the caches of a round: the pivot that wrote the texts, then whoever its objectives learn from."""
    counted = [objective.requirements for objective in context.rounds.objectives if objective.weight]
    sources = [source.name for source in context.config.sources] if any(each.sources for each in counted) else []
    reference = [REFERENCE] if any(each.reference_pivot for each in counted) else []
    return ["pivot", *reference, *sources]


def read_one(context: RoundContext, name: str) -> tuple[Cache, bool]:
    """Let one model read the texts; its cache, and whether there was something to do."""
    reader, writer = _reader(context, name)
    if writer.is_complete:
        return checked_cache(writer), False
    return extract_one(reader, "pivot" if name == REFERENCE else name, writer), True


def _reader(context: RoundContext, name: str) -> tuple[RoundContext, CacheWriter]:
    if name not in ("pivot", REFERENCE):
        return context, cache_writer(context, name)
    # as it is trained, and unrounded: a ratio of two probabilities of the pivot is 1 before the first step
    extract = context.config.extract.model_copy(
        update={"dtype": context.config.dtype, "value_format": "float32", "top_k": 1, "sampling": None}
    )
    update = {"extract": extract} | ({"pivot": context.run.config.pivot} if name == REFERENCE else {})
    alike = dataclasses.replace(context, config=context.config.model_copy(update=update))
    return alike, cache_writer(alike, "pivot", context.config.folder / "cache" / name)
