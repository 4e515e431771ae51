"""From the answers of all sources to the examples that are learned from. Nothing here runs a model."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fusion.data.datasets import Example
from fusion.responses.response import Response
from fusion.responses.settings import BestSource, EverySource, Written
from fusion.runtime.run_file import ResponseCounts


@dataclass(frozen=True)
class Question:
    """A prompt of the training data, what sources answered, and which answers pass."""

    example: Example
    """With the data's own response, which may be empty."""
    responses: Sequence[Response]
    """Those that may be learned from at all."""
    passed: Sequence[bool]

    def of(self, source: str, passed: bool = True) -> Response | None:
        """The first answer of a source, among those that passed unless said otherwise."""
        mine = (r for r, p in zip(self.responses, self.passed, strict=True) if r.source == source and (p or not passed))
        return next(mine, None)


def chosen(questions: Sequence[Question], how: Written, sources: Sequence[str]) -> list[tuple[Example, str | None]]:
    """The examples to learn from, each with the source that wrote it, None where the data's response stayed."""
    ranks = {domain: ranked(questions, domain, sources) for domain in {q.example.domain for q in questions}}
    found: list[tuple[Example, str | None]] = []
    for question in questions:
        order = ranks[question.example.domain]
        written = _best(question, how, order) if isinstance(how, BestSource) else _every(question, sources)
        found += [(dataclasses.replace(question.example, response=one.text), one.source) for one in written]
        if not written and how.otherwise == "reference" and question.example.response:
            found.append((question.example, None))
    return found


def ranked(questions: Sequence[Question], domain: str, sources: Sequence[str]) -> list[str]:
    """Sources by how many of their answers in a domain pass, most first; the first of equals as in `sources`.

    One that never passes is left out: nothing says that it knows the domain.
    """
    passed = Counter(
        response.source
        for question in questions
        if question.example.domain == domain
        for response, good in zip(question.responses, question.passed, strict=True)
        if good
    )
    return sorted((source for source in sources if passed[source]), key=lambda source: -passed[source])


def _best(question: Question, how: BestSource, order: Sequence[str]) -> list[Response]:
    of = [question.of(source, passed=how.keep == "accepted") for source in order]
    return [one for one in of if one is not None][:1]


def _every(question: Question, sources: Sequence[str]) -> list[Response]:
    """One answer of each source; those that say the same once."""
    of = [question.of(source) for source in sources]
    return list({one.text: one for one in reversed(of) if one is not None}.values())[::-1]


def counts(
    questions: Sequence[Question], examples: Sequence[tuple[Example, str | None]], sources: Sequence[str]
) -> list[ResponseCounts]:
    """How every source did in every domain, in the order of both."""
    domains = list(dict.fromkeys(question.example.domain for question in questions))
    return [_count(questions, examples, source, domain) for source in sources for domain in domains]


def _count(
    questions: Sequence[Question], examples: Sequence[tuple[Example, str | None]], source: str, domain: str
) -> ResponseCounts:
    asked = [question for question in questions if question.example.domain == domain]
    mine = [
        good
        for question in asked
        for response, good in zip(question.responses, question.passed, strict=True)
        if response.source == source
    ]
    learned = sum(wrote == source and example.domain == domain for example, wrote in examples)
    return ResponseCounts(source, domain, len(asked), len(mine), sum(mine), learned)


def expected(examples: Sequence[Example], how: Written, sources: Sequence[str]) -> list[Example]:
    """Examples of about the size that the chosen ones may have at most: for a plan, before anything is written."""
    writers = sources if isinstance(how, EverySource) else sources[:1]
    longest = " the" * how.max_new_tokens  # a token each, in most vocabularies
    return [
        dataclasses.replace(each, response=f"{each.response or longest} {name}")
        for each in examples
        for name in writers
    ]


def saved(example: Example, source: str | None) -> dict[str, Any]:
    """An example as JSON holds it, with who wrote its response."""
    return {"source": source, **asdict(example)}


def restored(found: Mapping[str, Any]) -> Example:
    """The example that `saved` gave."""
    values: dict[str, Any] = {name: value for name, value in found.items() if name != "source"}
    values |= {name: tuple(values[name]) for name in ("messages", "ahead") if values[name] is not None}
    return Example(**values)
