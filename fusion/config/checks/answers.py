"""Responses come from somewhere, and checks have what they compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fusion.config.data import DataSettings
from fusion.config.models import SourceSettings
from fusion.responses import BestSource, GeneratedResponses, TestsCheck

if TYPE_CHECKING:
    from fusion.config.run import Config


def check_answers(config: Config) -> None:
    """Responses come from somewhere, and checks have what they compare with."""
    data, sources, how = config.data, config.sources, config.data.responses
    given = {part: [each.response is not None for each in getattr(data, part)] for part in ("validation", "heldout")}
    given["train"] = [each.response is not None or isinstance(how, GeneratedResponses) for each in data.train]
    for part, there in given.items():
        if not all(there):
            way_out = ", or let sources answer: data.responses: best_source" if part == "train" else ""
            raise ValueError(
                f"data.{part}[{there.index(False)}] has prompts alone (response: null); give responses{way_out}"
            )
    if isinstance(how, GeneratedResponses):
        if data.easiest_fraction is not None:
            raise ValueError("data.easiest_fraction is for the data's own responses; leave it out, or data.responses")
        _writers(how, {source.name: source for source in sources})
        for number, each in enumerate(data.train):
            _checked(f"data.train[{number}]", each, len(sources))
            if isinstance(how, BestSource) and how.unlabelled == "best":
                _judged_alone(f"data.train[{number}]", each)


def _writers(how: GeneratedResponses, sources: Mapping[str, SourceSettings]) -> None:
    names = how.sources or list(sources)
    if unknown := set(names) - sources.keys():
        raise ValueError(f"data.responses.sources names {', '.join(sorted(unknown))}; sources are {', '.join(sources)}")
    if silent := [name for name in names if not sources[name].backend.can_generate]:
        raise ValueError(
            f"source {silent[0]} has backend {sources[silent[0]].backend.kind}, which writes no answers; name the others in "
            "data.responses.sources"
        )


def _checked(place: str, data: DataSettings, sources: int) -> None:
    check = data.check
    if data.as_raw_text:
        raise ValueError(
            f"{place} is as_raw_text: it has no prompts that could be answered; leave out as_raw_text, or data.responses"
        )
    if mistake := mistaken_check(place, data):
        raise ValueError(mistake)
    if check.needs_likelihood and sources < 2:
        raise ValueError(f"{place}.check {check.kind} asks the other sources, and there is one source only")


def _judged_alone(place: str, data: DataSettings) -> None:
    """A prompt without a reference gets the answers of one source alone."""
    if data.response is None and data.check.compares_sources:
        raise ValueError(
            f"{place}.check {data.check.kind} compares answers of several sources, and with data.responses.unlabelled: best "
            "one source answers; choose another check, such as ended, or leave out unlabelled"
        )
    if data.check.needs_likelihood:
        raise ValueError(
            f"{place}.check {data.check.kind} has every source read every answer; with data.responses.unlabelled: best choose "
            "another check, such as final_answer or knows_reference"
        )


def mistaken_check(place: str, data: DataSettings) -> str | None:
    """What a check lacks of its data set, whoever writes the answers."""
    check = data.check
    if check.needs_reference and data.response is None:
        return f"{place}.check {check.kind} compares with the response, which is null; choose another check"
    if isinstance(check, TestsCheck) and data.tests is None:
        return f'{place}.check tests runs {place}.tests, which is not set, such as "{{test_list}}"'
    if isinstance(check, TestsCheck) and not check.allow_code_execution:
        return (
            f"{place}.check tests runs programs that models wrote, in a sandbox; set allow_code_execution: true there to "
            "let it"
        )
    return None
