"""Transforms beside what a cache keeps and what objectives read."""

from __future__ import annotations

from collections.abc import Iterator

from fusion.config.conflicts.choices import Choices
from fusion.objectives import AnyObjective
from fusion.transforms import MappedTransform, Power, SourceTransform, TopKUniform


def exact_sums_need_whole_rows(chosen: Choices) -> Iterator[str]:
    """A temperature other than 1 needs the sum over the whole vocabulary, which the largest entries give within bounds."""
    for place, each in [(f"weighting ({chosen.weighting.kind})", chosen.weighting), *chosen.placed()]:
        if each.required_top_k is None and chosen.top_k != "all":
            yield (
                f"{place} with tail: exact sums over whole rows, and extract.top_k keeps {chosen.top_k} entries. From those "
                "the sum is known within bounds only: set tail to the one you accept (single; for a transform also even), "
                "or extract.top_k to all"
            )


def transforms_find_their_entries(chosen: Choices) -> Iterator[str]:
    """A transform may keep no more entries than a cache does."""
    for place, each in chosen.placed():
        if chosen.top_k != "all" and (each.required_top_k or 0) > int(chosen.top_k):
            yield (
                f"{place} reads {each.required_top_k} entries of each row, extract.top_k keeps {chosen.top_k}; raise it "
                "or lower the transform's"
            )


def objectives_find_what_transforms_leave(chosen: Choices) -> Iterator[str]:
    """After a transform that keeps few entries, a term can read no more."""
    for place, each in chosen.placed():
        for number, objective in enumerate(chosen.objectives):
            if isinstance(each, TopKUniform) and _reads_more(objective, each.top_k):
                needed = objective.requirements.source_top_k or "all"
                yield (
                    f"{place} leaves {each.top_k} entries of each row, objectives[{number}] ({objective.kind}) reads {needed}; "
                    "raise the transform's top_k or lower the objective's"
                )


def a_change_of_mapped_rows_is_seen(chosen: Choices) -> Iterator[str]:
    """A transform of mapped rows is a mistake where no objective reads mapped rows."""
    if any(objective.requirements.mapped_rows for objective in (*chosen.objectives, *chosen.later_objectives)):
        return
    for place, transform in chosen.placed():
        if isinstance(transform, MappedTransform):
            yield (
                f"{place} changes rows in the pivot's vocabulary, and none of the objectives reads those; add one that "
                "compares by token, such as forward_kl, or remove the transform"
            )


def a_temperature_is_seen(chosen: Choices) -> Iterator[str]:
    """Standardising, or looking at directions or hidden states alone, takes a factor on the logits out again."""
    fusing = [o for o in (*chosen.objectives, *chosen.later_objectives) if o.requirements.sources]
    if not fusing or any(objective.requirements.logit_scale for objective in fusing):
        return
    for place, transform in chosen.placed():
        if isinstance(transform, Power):
            names = " and ".join(sorted({objective.kind for objective in fusing}))
            yield (
                f"{place} is a factor on the logits, which nothing here sees: {names} look at the shape of a row or at "
                "hidden states; remove it or add another term"
            )


def transforms_stand_in_the_order_they_are_done(chosen: Choices) -> Iterator[str]:
    """Those in the source's own vocabulary come before the map, and so before all others."""
    for name, each in chosen.transforms.items():
        own = [isinstance(transform, SourceTransform) for transform in each]
        if own != sorted(own, reverse=True):
            yield (
                f"source {name}: {each[own.index(True, own.index(False))].kind} works in the source's own vocabulary, before "
                f"rows are mapped; list it before {each[own.index(False)].kind}"
            )


def _reads_more(objective: AnyObjective, top_k: int) -> bool:
    needed = objective.requirements.source_top_k
    return needed is None or needed > top_k


TRANSFORM_RULES = (
    exact_sums_need_whole_rows,
    transforms_find_their_entries,
    objectives_find_what_transforms_leave,
    a_change_of_mapped_rows_is_seen,
    a_temperature_is_seen,
    transforms_stand_in_the_order_they_are_done,
)
