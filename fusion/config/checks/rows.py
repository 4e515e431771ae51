"""Rows in the caches hold what objectives and weighting read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusion.config.conflicts import Choices
from fusion.config.models import SourceSettings
from fusion.config.stages import Extract
from fusion.objectives import AnyObjective

if TYPE_CHECKING:
    from fusion.config.run import Config


def check_rows(config: Config) -> None:
    """The caches of all sources hold what each objective reads."""
    for number, objective in enumerate(config.objectives):
        if config.extract.sampling is None:
            _enough_entries(number, objective, config.extract.top_k)
        if "hidden" in objective.requirements.source_fields and not config.extract.hidden_states:
            raise ValueError(
                f"objectives[{number}] ({objective.kind}) looks at hidden states of the sources, which the cache does not "
                "keep; set extract.hidden_states to true"
            )
        for source in config.sources:
            _known(number, objective, source)
    for source in config.sources:
        _extractable(config.extract, source)


def _extractable(extract: Extract, source: SourceSettings) -> None:
    if extract.sampling is not None and not source.backend.can_sample:
        raise ValueError(
            f"extract.sampling draws from whole distributions, which backend {source.backend.kind} of source "
            f"{source.name} does not give; use backend transformers, or extract.top_k"
        )
    if extract.hidden_states and "hidden" in source.backend.unknown_fields:
        raise ValueError(
            f"extract.hidden_states is true, and source {source.name} cannot give hidden states: its backend "
            f"{source.backend.kind} knows none. Give it backend transformers, or set extract.hidden_states to false"
        )


def _enough_entries(number: int, objective: AnyObjective, top_k: int | str) -> None:
    where, needed = f"objectives[{number}] ({objective.kind})", objective.requirements.source_top_k
    if needed is None and top_k != "all":
        raise ValueError(f"{where} needs whole rows: set extract.top_k to all (it is {top_k})")
    if needed is not None and top_k != "all" and needed > int(top_k):
        raise ValueError(
            f"{where} reads {needed} entries of each row, extract.top_k keeps {top_k}; raise it or lower top_k"
        )


def _known(number: int, objective: AnyObjective, source: SourceSettings) -> None:
    if never := objective.requirements.source_fields & source.backend.unknown_fields:
        raise ValueError(
            f"objectives[{number}] ({objective.kind}) reads {' and '.join(sorted(never))} of each row, which source "
            f"{source.name} cannot give: backend {source.backend.kind} knows log-probabilities only. Choose another input "
            "for the objective, leave it out, or give the source backend transformers"
        )


def choices(config: Config) -> Choices:
    """Return what of a configuration may be in conflict."""
    return Choices(
        config.objectives,
        config.weighting,
        {source.name: source.transforms for source in config.sources},
        config.extract.top_k,
        config.alignment,
        config.strategies,
        [data.domain for data in config.data.train],
        sampled=config.extract.sampling is not None,
        engine=config.engine.kind,
        adapter=config.adapter.kind if config.adapter else None,
        weightless=[source.name for source in config.sources if not source.backend.has_weights],
        later_objectives=config.rounds.objectives if config.rounds else (),
    )
