"""Which questions of a run the report shows with everyone's answers: won ones and lost ones, chosen by rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusion.report.run_contents import RunContents
from fusion_eval.results import Result, Sample
from fusion_eval.statistics.metrics import METRICS

SAMPLES_OF_A_KIND = 2
"""Questions shown of each kind in a domain."""
MAX_CHARACTERS = 800
"""Characters of a prompt or an answer that are shown."""

Answers = list[tuple[str, Sample]]
"""Each model with its sample of one question."""
WON, LOST = "is right where others are wrong", "is wrong"
JUST_FIRST = "the first"


def chosen_samples(contents: RunContents, suite: str) -> dict[str, list[dict[str, Any]]]:
    """By domain: questions that the fused model got right where others did not, then those that it got wrong.

    The first kind is ordered by how many of pivot, fine-tuned and best source are wrong, the second by how many are right;
    ties by the order of the questions, so that the same results show the same samples. Where no fused model was judged,
    the first questions. Beside each other stand the answers of the fused model, fine-tuned, pivot and the domain's best source.
    """
    shown: dict[str, list[dict[str, Any]]] = {}
    for domain, questions in _by_domain(contents.results[suite]).items():
        models = _models(contents, suite, questions)
        kept = [[(model, sample) for model, sample in each if model in models] for each in questions]
        if chosen := _chosen(kept, contents.run.result):
            shown[domain] = [_shown(kind, each) for kind, each in chosen]
    return shown


def _by_domain(results: Sequence[Result]) -> dict[str, list[Answers]]:
    """The questions of each domain that any model answered, each with the samples of all models."""
    questions: dict[str, Answers] = {}
    for result in results:
        for sample in result.samples:
            questions.setdefault(sample.id, []).append((result.model, sample))
    domains: dict[str, list[Answers]] = {}
    for each in questions.values():
        if any(sample.answer is not None for _, sample in each):
            domains.setdefault(each[0][1].domain, []).append(each)
    return domains


def _models(contents: RunContents, suite: str, questions: Sequence[Answers]) -> list[str]:
    """The fused model, fine-tuned, the pivot, and the source with the most right answers to these questions."""
    run, sources = contents.run, [one.model for one in contents.results_by_role(suite, "source")]
    right = {source: sum(passed(s) is True for each in questions for m, s in each if m == source) for source in sources}
    best = [max(sources, key=lambda source: right[source])] if sources else []
    return [model for model in (run.result, run.baseline, *run.names_by_role("pivot"), *best) if model is not None]


def _chosen(questions: Sequence[Answers], fused: str | None) -> list[tuple[str, Answers]]:
    """Return the questions of a domain to show, each as an example of one that was won or one that was lost."""
    judged = [(each, v) for each in questions if fused is not None and (v := _verdicts(each)).get(fused) is not None]
    if fused is None or not judged:
        return [(JUST_FIRST, each) for each in questions[: 2 * SAMPLES_OF_A_KIND]]
    won = [(each, others) for each, v in judged if v[fused] and (others := _others(v, fused, right=False))]
    lost = [(each, _others(v, fused, right=True)) for each, v in judged if not v[fused]]
    return [
        (kind, each)
        for kind, found in ((WON, won), (LOST, lost))
        for each, _ in sorted(found, key=lambda pair: -pair[1])[:SAMPLES_OF_A_KIND]  # a stable sort keeps their order
    ]


def _verdicts(answers: Answers) -> dict[str, bool | None]:
    return {model: passed(sample) for model, sample in answers}


def _others(verdicts: dict[str, bool | None], fused: str, *, right: bool) -> int:
    """Count the other models that answered a question right (or wrong)."""
    return sum(verdict is right for model, verdict in verdicts.items() if model != fused)


def _shown(kind: str, answers: Answers) -> dict[str, Any]:
    first = answers[0][1]
    return {
        "kind": kind,
        "prompt": shortened(first.prompt),
        "expected": shortened(first.target),
        "answers": [(model, passed(sample), shortened(sample.answer or "")) for model, sample in answers],
    }


def passed(sample: Sample) -> bool | None:
    """Whether the answer has the full score of the first metric that judges answers; None where none does."""
    for metric in METRICS.values():
        if not metric.lower_is_better and (parts := metric.parts(sample)) is not None:
            return parts[0] >= parts[1]
    return None


def shortened(text: str) -> str:
    """Return a text, or where it is long its beginning and how many characters are left out."""
    return (
        text
        if len(text) <= MAX_CHARACTERS
        else f"{text[:MAX_CHARACTERS]} … ({len(text) - MAX_CHARACTERS:,} more characters)"
    )
