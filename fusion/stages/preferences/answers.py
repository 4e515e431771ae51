"""The answers at hand: of sources to the training prompts, and of the pivot in its rounds, as their checks judged them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fusion.data.example import Example
from fusion.stages.context import RunContext
from fusion.stages.respond.choose import judged_responses
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.kept import round_folder
from fusion.stages.rounds.texts import WRITER


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer to a training prompt, and what its check says of it."""

    example: Example
    """The prompt with this answer as its response."""
    writers: frozenset[str]
    """Who wrote it: `pivot`, or names of sources."""
    passed: bool


def judged_answers(run: RunContext) -> list[JudgedAnswer]:
    """Return all answers of a run, each text once."""
    return each_text_once([*_of_sources(run), *_of_rounds(run)])


def each_text_once(answers: Iterable[JudgedAnswer]) -> list[JudgedAnswer]:
    """Return answers with all who wrote each; a text that was judged differently at different times is left out."""
    found: dict[str, JudgedAnswer] = {}
    disputed: set[str] = set()
    for answer in answers:
        before = found.setdefault(answer.example.id, answer)
        found[answer.example.id] = dataclasses.replace(before, writers=before.writers | answer.writers)
        if before.passed != answer.passed:
            disputed.add(answer.example.id)
    return [answer for id, answer in found.items() if id not in disputed]


def _of_sources(run: RunContext) -> Iterator[JudgedAnswer]:
    """What may be learned from of sources' answers (`data.responses.truncated`), also where another was chosen.

    Answers of which no check can say anything are neither right nor wrong.
    """
    if not run.has_generated_responses:
        return
    for prompt, judged in zip(judged_responses(run), run.responding.judged, strict=True):
        if not judged:
            continue
        for response, passed in zip(prompt.responses, prompt.passed, strict=True):
            example = dataclasses.replace(prompt.example, response=response.text)
            yield JudgedAnswer(example, frozenset({response.source}), bool(passed))


def _of_rounds(run: RunContext) -> Iterator[JudgedAnswer]:
    """What ended of the texts that the pivot wrote, whichever round was kept."""
    for number in range(1, run.config.rounds.count + 1) if run.config.rounds else ():
        one = RoundContext.of(run, number, round_folder(run.config, number - 1) / "model")
        for text in one.written:
            if text.passed is not None and text.rollout.end is not None and text.example.response.strip():
                yield JudgedAnswer(text.example, frozenset({WRITER}), text.passed)
