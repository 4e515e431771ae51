"""Whether rows hold what is read of them: known from the manifests of the caches, so before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from fusion.cache.known_fields import KnownFields
from fusion.objectives import AnyObjective, MatchedObjective
from fusion.transforms import AnyTransform
from fusion.weighting import AnyWeighting

NAMES = {
    "gold": "the log-probability of the true token",
    "mean": "the mean of the logits",
    "std": "their deviation",
    "hidden": "the hidden state",
}
WAYS_OUT = {"hidden": "Set extract.hidden_states to true and extract the source again"}


def lacking(
    objectives: Sequence[AnyObjective],
    weighting: AnyWeighting,
    sources: Mapping[str, KnownFields],
    transforms: Mapping[str, Sequence[AnyTransform]] = MappingProxyType({}),
) -> list[str]:
    """One sentence for each thing that an objective, the weighting or a transform reads and a source's rows do not all hold.

    `transforms` are those of each source, by name.
    """
    readers = [
        (f"objectives[{i}] ({o.kind})", o.requirements.source_fields, "another input") for i, o in enumerate(objectives)
    ]
    readers += [
        (f"objectives[{i}].select ({o.select.kind})", o.select.required_source_fields, "another selection")
        for i, o in enumerate(objectives)
        if isinstance(o, MatchedObjective) and o.select
    ]
    readers.append((f"weighting ({weighting.kind})", weighting.required_source_fields, "kind: sum or mean"))
    found = []
    for name, known in sources.items():
        own = [
            (f"transforms[{i}] ({t.kind})", t.required_source_fields, "no such transform")
            for i, t in enumerate(transforms.get(name, ()))
        ]
        for reader, needs, instead in [*readers, *own]:
            for field, rows in _unknown(known, needs):
                way_out = WAYS_OUT.get(field, f"Set {instead}")
                found.append(
                    f"{reader} needs {NAMES[field]}, which {rows} of {known.rows} rows of source {name} do not have (NaN). "
                    f"{way_out}, or take this source's rows from a backend that knows it."
                )
        for i, objective in enumerate(objectives):
            needed = objective.requirements.source_top_k
            if needed and needed > known.min_entries:
                found.append(
                    f"objectives[{i}] ({objective.kind}) reads {needed} entries of each row, and some of source "
                    f"{name} have only {known.min_entries}. Lower its top_k, or take rows from a backend that gives more."
                )
        if (weighting.required_top_k or 0) > known.min_entries:
            found.append(
                f"weighting ({weighting.kind}) reads {weighting.required_top_k} entries of each row, and some of source {name} "
                f"have only {known.min_entries}. Choose another, or take rows from a backend that gives more."
            )
    return found


def _unknown(known: KnownFields, needs: frozenset[str]) -> Iterator[tuple[str, int]]:
    """The fields that some rows lack, and how many rows lack each."""
    have = {"gold": known.gold, "mean": known.moments, "std": known.moments, "hidden": known.hidden}
    yield from ((field, known.rows - have[field]) for field in sorted(needs) if have[field] < known.rows)
