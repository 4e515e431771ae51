"""Choice of the examples to train on, among the responses of all sources. Nothing here runs a model."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fusion.data.example import Example
from fusion.responses.response import Response
from fusion.responses.settings import BestSource, EverySource, GeneratedResponses
from fusion.runtime.run_file import ResponseCounts


@dataclass(frozen=True)
class PromptResponses:
    """A prompt of the training data, the responses of sources to it, and which of these pass the check."""

    example: Example
    """With the data set's own response, which may be empty."""
    responses: Sequence[Response]
    """Of all sources: neither empty nor, unless that is allowed, truncated."""
    passed: Sequence[bool]
    """For each of the responses, whether it passes."""
    reasons: Sequence[str] = ()
    """For each of the responses why it does not pass, as far as its check says."""
    tests_broken: str = ""
    """What keeps the tests of its row from running, whatever the response; empty where they run, or there are none."""

    def of_source(self, source: str) -> list[tuple[Response, bool]]:
        """Responses of one source, and whether each passes."""
        pairs = zip(self.responses, self.passed, strict=True)
        return [(response, passed) for response, passed in pairs if response.source == source]

    def first_response(self, source: str, *, must_pass: bool = True) -> Response | None:
        """The first response of a source, among those that pass unless `must_pass` is False; None where there is none."""
        return next((response for response, passed in self.of_source(source) if passed or not must_pass), None)


def choose_examples(
    prompts: Sequence[PromptResponses], settings: GeneratedResponses, sources: Sequence[str]
) -> list[tuple[Example, str | None]]:
    """Choose the examples to train on, each with the source of its response, None for the data set's own response."""
    domains = {prompt.example.domain for prompt in prompts}
    ranking = {domain: rank_sources(prompts, domain, sources) for domain in domains}
    examples: list[tuple[Example, str | None]] = []
    for prompt in prompts:
        if isinstance(settings, BestSource):
            responses = _best(prompt, settings, ranking[prompt.example.domain])
        else:
            responses = _every(prompt, sources)
        examples += [(dataclasses.replace(prompt.example, response=r.text), r.source) for r in responses]
        if not responses and settings.fallback == "reference" and prompt.example.response:
            examples.append((prompt.example, None))
    return examples


def rank_sources(prompts: Sequence[PromptResponses], domain: str, sources: Sequence[str]) -> list[str]:
    """Rank sources by how many of their responses in a domain pass, most first; equals stay in the order of `sources`.

    One that never passes is left out: nothing says that it knows the domain.
    """
    passed = {source: sum(_passes(prompts, source, domain)) for source in sources}
    return sorted((source for source in sources if passed[source]), key=lambda source: -passed[source])


def _passes(prompts: Iterable[PromptResponses], source: str, domain: str) -> list[bool]:
    """Whether each response of a source in a domain passes."""
    in_domain = [prompt for prompt in prompts if prompt.example.domain == domain]
    return [passed for prompt in in_domain for _, passed in prompt.of_source(source)]


def _best(prompt: PromptResponses, settings: BestSource, ranking: Sequence[str]) -> list[Response]:
    """One response at most: of equally good ones the first of the source that ranks first."""
    must_pass = settings.keep == "accepted"
    by_source = [[r for r, passed in prompt.of_source(source) if passed or not must_pass] for source in ranking]
    if not must_pass:  # nothing but its rank speaks for a source then
        by_source = [responses for responses in by_source if responses][:1]
    responses = [response for responses in by_source for response in responses]
    return sorted(responses, key=lambda response: -_fit(response, settings))[:1]


def _fit(response: Response, settings: BestSource) -> float:
    """How well a response fits the pivot, more is better; the same for all where the first is preferred."""
    if settings.prefer == "first":
        return 0.0
    assert response.pivot_fit is not None
    return response.pivot_fit.logprob if settings.prefer == "likeliest" else -response.pivot_fit.rank_surprisal


def _every(prompt: PromptResponses, sources: Sequence[str]) -> list[Response]:
    """One response of each source; of equal texts the first."""
    responses = [prompt.first_response(source) for source in sources]
    return list({response.text: response for response in reversed(responses) if response is not None}.values())[::-1]


def count_responses(
    prompts: Sequence[PromptResponses],
    examples: Sequence[tuple[Example, str | None]],
    asked: Mapping[str, Collection[str]],
    judged: Collection[str] | None = None,
) -> list[ResponseCounts]:
    """Count responses by source and domain, in the order of both.

    `examples` are those of `choose_examples`; `asked` has the ids of the prompts that each source was asked, `judged` of those
    whose check tells who is right, if not of all.
    """
    chosen = Counter((source, example.domain) for example, source in examples)
    counts: list[ResponseCounts] = []
    for source, ids in asked.items():
        for domain in dict.fromkeys(prompt.example.domain for prompt in prompts):
            of_domain = [p for p in prompts if p.example.domain == domain and p.example.prompt_id in ids]
            told = of_domain if judged is None else [p for p in of_domain if p.example.prompt_id in judged]
            answers, passes = (_passes(of, source, domain) for of in (of_domain, told))
            known = None if judged is None else len(passes)
            counts.append(
                ResponseCounts(source, domain, len(of_domain), len(answers), sum(passes), chosen[source, domain], known)
            )
    return counts


def placeholder_examples(
    examples: Sequence[Example], settings: GeneratedResponses, sources: Sequence[str]
) -> list[Example]:
    """Examples as long as chosen ones may get, for a plan before any response is generated."""
    writers = sources if isinstance(settings, EverySource) else sources[:1]
    longest = " the" * settings.max_new_tokens  # a token each, in most vocabularies
    return [
        dataclasses.replace(example, response=f"{example.response or longest} {name}")
        for example in examples
        for name in writers
    ]


def example_to_json(example: Example, source: str | None) -> dict[str, Any]:
    """Convert an example to what JSON can hold, with the source of its response."""
    return {"source": source, **asdict(example)}


def example_from_json(stored: Mapping[str, Any]) -> Example:
    """Convert back what `example_to_json` returned."""
    values: dict[str, Any] = {name: value for name, value in stored.items() if name != "source"}
    values |= {
        name: tuple(values[name]) for name in ("messages", "look_ahead", "tools") if values.get(name) is not None
    }
    return Example(**values)
