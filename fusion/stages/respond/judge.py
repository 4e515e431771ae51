"""Which answers pass the checks of their data sets."""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from fusion.data.example import Example
from fusion.responses import PivotFit, PromptResponses, Response
from fusion.runtime import distributed
from fusion.runtime.artifacts import fingerprint
from fusion.runtime.console import bar
from fusion.runtime.locks import exclusive
from fusion.stages.context import RunContext
from fusion.stages.respond.answers import REDO, answer_store
from fusion.stages.respond.reads import REFERENCES, score_store

Written = Mapping[str, Mapping[str, Any]]
"""By name of a source: its answers by prompt id, those of prompts that it was asked."""


def prepare_checks(context: RunContext) -> None:
    """Raise an error, with the way out, where a check could not judge any answer: before sources write them."""
    for data in context.config.data.train:
        data.check.prepare()
    pairs = zip(context.original_examples, context.checks, strict=True)
    wrong = [said for example, check in pairs if (said := check.cannot_judge(example))]
    if wrong:
        raise ValueError(wrong[0] + (f" {len(wrong) - 1:,} more rows are like it." if wrong[1:] else ""))


def answers_to_all(context: RunContext) -> Written:
    """What each source wrote to the prompts that all answer."""
    return {name: answer_store(context, name).read() for name in context.responding.sources}


def judge_answers(
    context: RunContext, written: Written, prompts: Container[str] | None = None
) -> list[PromptResponses]:
    """Every prompt of the data, or each of `prompts`, with its answers and which of them pass the check of its data set.

    Raises ValueError where a check lacks what it compares with.
    """
    pairs = zip(context.original_examples, context.checks, strict=True)
    chosen = [(example, check) for example, check in pairs if prompts is None or example.prompt_id in prompts]
    read_by = {name: score_store(context, name).read() for name in context.responding.readers}
    found = []
    with bar("answers checked", len(chosen), "prompts") as advance:
        for example, check in chosen:
            responses = _responses(context, example.prompt_id, written, read_by)
            found.append(PromptResponses(example, responses, *check.judge(example, responses)))
            advance(1)
    return found


def _responses(context: RunContext, id: str, written: Written, read_by: Written) -> list[Response]:
    """The answers to a prompt that may be learned from at all."""
    whole, pivot = context.responding.settings.truncated == "keep", read_by.get("pivot")
    found = []
    for name, of in written.items():
        for number, (text, ended) in enumerate(of.get(id, ())):
            if text.strip() and (ended or whole):
                others = [
                    read_by[reader][id][name][number] for reader in context.responding.scoring_sources if reader != name
                ]
                fit = PivotFit(*pivot[id][name][number]) if pivot else None
                other = sum(others) / len(others) if others else None
                reference = read_by[name][id][REFERENCES][0] if id in context.responding.scored_references else None
                found.append(Response(name, text, ended, other, reference, fit))
    return found


def judged_by(context: RunContext) -> dict[str, Any]:
    """All that decides which answers pass, besides the answers: what is read of them, the checks, what these compare with."""
    return {
        "reads": {name: score_store(context, name).key for name in context.responding.readers},
        "responses": context.responding.settings.model_dump(),
        "checks": [data.check.key() for data in context.config.data.train],
        "examples": fingerprint({"ids": [_compared(example) for example in context.original_examples]}),
    }


def refuse_changed_checks(context: RunContext, before: Mapping[str, Any]) -> None:
    """Raise ValueError where a file of a check is not what it was when `judged_by` said so."""
    if before["checks"] != judged_by(context)["checks"]:
        raise ValueError(f"A file of a check was changed while it was judging answers. Run `{REDO}` again.")


def deciding(folder: Path, what: str) -> AbstractContextManager[None]:
    """Keep other starts of `fusion respond`, which may share the answering, from deciding the same at the same time."""
    if not distributed.is_main_process():
        return nullcontext()
    return exclusive(folder.with_name(f"{folder.name}.lock"), f"{what} in {folder}", wait=True)


def _compared(example: Example) -> list[Any]:
    """What an example brings for its check."""
    return [example.id, example.domain, example.tests, *([example.columns] if example.columns else [])]
