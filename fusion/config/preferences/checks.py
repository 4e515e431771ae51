"""What the settings of preferences must be besides right one by one; each mistake says its way out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fusion.config.preferences.settings import Preferences
from fusion.config.rounds.settings import Rounds
from fusion.objectives import AnyObjective, CrossEntropy, PreferenceObjective
from fusion.responses import EndedCheck, GeneratedResponses
from fusion.sources import Imported

if TYPE_CHECKING:
    from fusion.config.run import Config


def preference_mistakes(config: Config) -> Iterator[str]:
    """Yield a sentence for each mistake in the settings of preferences, and for objectives of theirs in other places."""
    yield from _misplaced("objectives", config.objectives)
    if config.rounds is not None:
        yield from _misplaced("rounds.objectives", config.rounds.objectives)
    if (preferences := config.preferences) is not None:
        yield from _answers(config)
        yield from _objectives(config, preferences)


def _misplaced(place: str, objectives: Sequence[AnyObjective]) -> Iterator[str]:
    for number, objective in enumerate(objectives):
        if objective.requirements.preferences:
            setting = " with part: chosen" if isinstance(objective, CrossEntropy) else ""
            yield (
                f"{place}[{number}] ({objective.kind}){setting} is about right and wrong answers to one prompt, and these "
                "objectives see single texts; it belongs under preferences.objectives"
            )


def _answers(config: Config) -> Iterator[str]:
    """There are answers, and some may be wrong."""
    if not isinstance(config.data.responses, GeneratedResponses) and config.rounds is None:
        yield (
            "preferences compares answers that sources or the pivot wrote, and nobody writes any; let sources answer "
            "(data.responses: best_source), add rounds, or leave preferences out"
        )
    elif all(isinstance(data.check, EndedCheck) for data in config.data.train):
        yield (
            "preferences compares right with wrong answers, and by data.train[...].check ended, the default, no answer that "
            "ended is wrong; choose a check that compares, such as final_answer, for one of the data sets"
        )


def _objectives(config: Config, preferences: Preferences) -> Iterator[str]:
    counted = [objective for objective in preferences.objectives if objective.weight]
    if not any(isinstance(objective, PreferenceObjective) for objective in counted):
        yield "preferences.objectives has nothing that compares two answers; add dpo, wrpo or infifpo"
    for number, objective in enumerate(preferences.objectives):
        place = f"preferences.objectives[{number}] ({objective.kind})"
        if not objective.requirements.preferences:
            way_out = "set part: chosen" if isinstance(objective, CrossEntropy) else "leave it out"
            yield f"{place} would teach wrong answers as well as right ones; {way_out}"
        if objective.requirements.own_answers and not _has_both_writers(config):
            yield (
                f"{place} compares answers that the pivot wrote in rounds with those of sources; add rounds and "
                "data.responses: best_source, or choose dpo"
            )
        elif objective.requirements.own_answers and config.rounds and _writes_once(config.rounds):
            yield (
                f"{place} compares two answers of the pivot to one prompt, and it writes one to each "
                "(rounds.num_generations is 1); raise that, or choose dpo"
            )
        for source in config.sources if objective.requirements.sources else ():
            if isinstance(source.backend, Imported):
                yield (
                    f"{place} lets sources read answers that are written in this run, and rows of source {source.name} were "
                    "made elsewhere (backend imported); choose dpo, or give the source another backend"
                )
            if unknown := objective.requirements.source_fields & source.backend.unknown_fields:
                yield (
                    f"{place} reads {' and '.join(sorted(unknown))} of each row, which source {source.name} cannot give with "
                    f"backend {source.backend.kind}; choose dpo, or give the source another backend"
                )
    if preferences.same_writer and any(objective.requirements.own_answers for objective in counted):
        yield "preferences.same_writer is true, and wrpo's pairs are the pivot's own anyway; leave it out"


def _writes_once(rounds: Rounds) -> bool:
    """Whether there is one answer to each prompt; later rounds may come back to a prompt."""
    return rounds.num_generations == 1 and rounds.count == 1


def _has_both_writers(config: Config) -> bool:
    return config.rounds is not None and isinstance(config.data.responses, GeneratedResponses)
