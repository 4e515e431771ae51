"""What a whole configuration must be besides right in each part; each mistake says its way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fusion.config.checks.answers import check_answers, mistaken_check
from fusion.config.checks.examples import check_evaluation, check_look_ahead, check_validation
from fusion.config.checks.rows import check_rows, choices
from fusion.config.checks.sources import check_sources
from fusion.config.checks.training import check_engine, check_objectives, check_quantization, check_result
from fusion.config.conflicts import conflicts
from fusion.config.preferences.checks import preference_mistakes
from fusion.config.rounds.checks import as_a_run, placed, round_mistakes
from fusion.config.stages import Baseline
from fusion.config.without_effect import without_effect
from fusion.responses import GeneratedResponses

if TYPE_CHECKING:
    from fusion.config.run import Config


def check(config: Config) -> None:
    """Raise ValueError for parts that do not go together."""
    rules = (
        check_sources, check_answers, check_look_ahead, check_validation, check_engine, check_quantization, check_result,
        check_evaluation, check_objectives,
    )  # fmt: skip
    mistakes = [mistake for rule in (*rules, check_rows) if (mistake := _mistake(rule, config))]
    mistakes += [*conflicts(choices(config)), *without_effect(config), *_rounds(config)]
    mistakes += [*preference_mistakes(config), *_other_trainings(config)]
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _rounds(config: Config) -> Iterator[str]:
    """What objectives of rounds read is there, as for those of the first training; and texts can be written and checked."""
    if (rounds := config.rounds) is None:
        return
    alike = as_a_run(config, rounds)
    found = [_mistake(rule, alike) for rule in (check_rows, check_engine, check_result)]
    # about what is not of rounds, and said already
    said = {_mistake(rule, config) for rule in (check_engine, check_result)}
    for mistake in [*found, *conflicts(choices(alike)), *without_effect(alike)]:
        if mistake is not None and mistake not in said and (sentence := placed(mistake, rounds)):
            yield sentence
    if not isinstance(config.data.responses, GeneratedResponses):
        for number, data in enumerate(config.data.train):
            if not data.as_raw_text and (mistake := mistaken_check(f"data.train[{number}]", data)):
                yield mistake
    yield from round_mistakes(config, rounds)


def _other_trainings(config: Config) -> Iterator[str]:
    """What is right for the run's training is right for that of preferences and of the baseline."""
    preferences = config.preferences.training if config.preferences else {}
    baseline = config.baseline.training if isinstance(config.baseline, Baseline) else {}
    for place, changed in {"preferences": preferences, "baseline": baseline}.items():
        alike = config.model_copy(update={"training": config.training | changed})
        for rule in (check_engine, check_result) if changed else ():
            if (mistake := _mistake(rule, alike)) is not None and mistake != _mistake(rule, config):
                yield mistake.replace("training.", f"{place}.training.")


def _mistake(rule: Callable[[Config], None], config: Config) -> str | None:
    try:
        rule(config)
    except ValueError as error:
        return str(error)
    return None
