"""Validation examples, held-out examples and what sources that look ahead are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusion.sources import Similarity
from fusion.training.validation import EVAL_ARGUMENTS, validation_arguments

if TYPE_CHECKING:
    from fusion.config.run import Config


def check_look_ahead(config: Config) -> None:
    """What is shown to sources that look ahead needs one that does, and the other way round."""
    data, sources = config.data, config.sources
    shown = {
        part: [f"data.{part}[{i}]" for i, each in enumerate(getattr(data, part)) if each.look_ahead is not None]
        for part in ("train", "validation", "heldout")
    }
    looking = [source for source in sources if source.look_ahead]
    if shown["validation"] and config.weighting.missing_shares is None:
        raise ValueError(
            f"{shown['validation'][0]} has look_ahead, and no source reads validation examples; take it out"
        )
    if shown["heldout"]:
        raise ValueError(f"{shown['heldout'][0]} has look_ahead, and nothing may look ahead there; take it out")
    if not looking and (for_nobody := [*shown["train"], *shown["validation"]]):
        raise ValueError(f"{for_nobody[0]} has look_ahead, which no source reads; set look_ahead: true on one")
    if looking and not shown["train"]:
        raise ValueError(
            f"source {looking[0].name} has look_ahead, and no data set in data.train says what it would see; set look_ahead "
            'there, such as look_ahead: "{last_message} Solution: {solution}"'
        )
    if blind := [source.name for source in looking if isinstance(source.backend, Similarity)]:
        raise ValueError(
            f"source {blind[0]} has look_ahead, and its backend similarity never reads a prompt; leave out one of the two"
        )


def check_validation(config: Config) -> None:
    """Validation examples are there where trainings are watched or shares are to be found on them, and nowhere else."""
    data, unfound = config.data, config.weighting.missing_shares
    watched = bool(validation_arguments(config.training))
    if unfound is None and data.validation and not watched and config.rounds is None:
        raise ValueError(
            "data.validation is read while the pivot trains, and training.eval_strategy is no, or by weighting: learned, where "
            "its shares are to be found; take out data.validation, or eval_strategy"
        )
    given = {"training": config.training}
    given |= {"rounds.training": config.rounds.training} if config.rounds else {}
    given |= {"preferences.training": config.preferences.training} if config.preferences else {}
    given |= {f"sources.{s.name}.fine_tune.training": s.fine_tune.training for s in config.sources if s.fine_tune}
    for place, arguments in given.items() if not data.validation else ():
        if named := [name for name in EVAL_ARGUMENTS if name in arguments and arguments[name] != "no"]:
            raise ValueError(
                f"{place}.{named[0]} says when validation examples are read, and data.validation has none; give it data sets, "
                f'such as the last rows of a training file (split: "train[-50:]"), or leave out {named[0]}'
            )
    if unfound and not data.validation:
        raise ValueError("weighting: learned finds its shares on data.validation, which is empty; give it data sets")
    missing = {each.domain for each in data.train} - {each.domain for each in data.validation}
    if unfound == "domain" and missing:
        raise ValueError(
            f"weighting: learned finds shares of each domain, and data.validation has none of {', '.join(sorted(missing))}; "
            "add it, or set weighting.per to all"
        )


def check_evaluation(config: Config) -> None:
    """Answers are compared in domains that there are."""
    domains = {data.domain for data in config.data.heldout}
    if unknown := set(config.evaluation.exact_match) - domains:
        raise ValueError(
            f"evaluation.exact_match names {', '.join(sorted(unknown))}; heldout domains are {', '.join(sorted(domains))}"
        )
    compared = config.evaluation.compare if isinstance(config.evaluation.compare, dict) else {}
    if unknown := compared.keys() - set(config.evaluation.exact_match):
        raise ValueError(
            f"evaluation.compare names {', '.join(sorted(unknown))}, where no answer is compared; add the domain to "
            "evaluation.exact_match, or take it out"
        )
