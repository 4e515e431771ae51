"""The data sets of a run: read, kept apart from each other, and described for people."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fusion.config import Data, DataSettings
from fusion.data import datasets
from fusion.data.datasets import DataSet, LeftOut
from fusion.data.example import Example, unique_examples
from fusion.stages.prompts import encode_example

if TYPE_CHECKING:
    from fusion.stages.context import RunContext

SHOWN = 160
"""Characters of a prompt or response that are shown."""


@dataclass(frozen=True)
class RunData:
    """The data sets of a run, each read once, when first asked for."""

    settings: Data
    leave_out: Callable[[list[DataSet], bool], list[DataSet]] | None = None
    """What takes examples out of data sets, which are held out (true) or not; None leaves them all in."""

    @functools.cached_property
    def heldout(self) -> list[DataSet]:
        """What is measured on."""
        return self._read(self.settings.heldout, heldout=True)

    @functools.cached_property
    def validation(self) -> list[DataSet]:
        """What weights are chosen on."""
        return self._read(self.settings.validation)

    @functools.cached_property
    def training(self) -> list[DataSet]:
        """What is learned from, without questions that are measured on where `data.decontaminate` says so."""
        sets = self._read(self.settings.train)
        if not self.settings.decontaminate:
            return sets
        questions = {example.question for example in unique_of([*self.heldout, *self.validation])}
        kept = [_without(each, questions) for each in sets]
        if not any(each.examples for each in kept):
            raise ValueError(
                "data.decontaminate leaves nothing to learn from: every question of data.train is held out."
            )
        return kept

    def _read(self, settings: Sequence[DataSettings], *, heldout: bool = False) -> list[DataSet]:
        sets = [datasets.read(**each.reading) for each in settings]
        return sets if self.leave_out is None else self.leave_out(sets, heldout)

    @property
    def parts(self) -> dict[str, list[DataSet]]:
        """The data sets by what they are for."""
        return {"training": self.training, "held out": self.heldout, "validation": self.validation}


def unique_of(sets: Sequence[DataSet]) -> list[Example]:
    """Return the examples of several data sets, each content once."""
    return list(unique_examples(example for each in sets for example in each.examples))


def _without(data: DataSet, questions: set[str]) -> DataSet:
    shared = [example for example in data.examples if example.question in questions]
    if not shared:
        return data
    left_out = LeftOut("its question is held out", len(shared), shared[0].origin)
    kept = [example for example in data.examples if example.question not in questions]
    return replace(data, examples=kept, left_out=[*data.left_out, left_out])


def refuse_shared(found: Sequence[Example], what: str, others: Sequence[Example], which: str) -> None:
    """Raise ValueError where a question of `found` is also one of `others`, whatever the answer, case or white space."""
    known = {example.question: example for example in others}
    both = [example for example in found if example.question in known]
    if both:
        first = both[0]
        raise ValueError(
            f"{len(both)} of {len(found)} {what} examples ask what is also in the {which} data (answers, case and white space "
            f"aside). The first begins {(first.prompt or first.response)[:60]!r} ({first.origin}; "
            f"{known[first.question].origin}). Take other rows, for example with skip and limit"
            + (", or set data.decontaminate: true to leave them out of training." if which == "training" else ".")
        )


def data_facts(context: RunContext) -> list[dict[str, Any]]:
    """How each data set was read, for run.json."""
    return [
        {
            "part": part,
            "path": each.path,
            "examples": len(each.examples),
            "reading": each.reading,
            "left_out": [asdict(one) for one in each.left_out],
            "unused": each.unused,
        }
        for part, sets in context.data.parts.items()
        for each in sets
    ]


def describe_data(context: RunContext) -> Iterator[str]:
    """Yield, for people, how each data set was read, and the first example of each as the pivot reads it."""
    context = replace(context, for_plan=True)
    for part, sets in context.data.parts.items():
        # where sources answer, the response of the data, if there is one, is compared with and not learned from
        learned = part != "training" or not context.has_generated_responses
        for each in sets:
            yield f"{part}: {each.describe()}"
            if each.examples:
                yield f"    the first, as the pivot reads it: {_as_read(context, each.examples[0], learned)}"


def _as_read(context: RunContext, example: Example, learned: bool) -> str:
    tokenizer = context.tokenizers["pivot"]
    text = encode_example(context, "pivot", example, example.messages, context.config.data.max_length)
    prompt, response = tokenizer.decode(text.input_ids[: text.start]), tokenizer.decode(text.input_ids[text.start :])
    return f"{_shortened(prompt)} -> {_shortened(response) if learned else '(what sources answer)'}"


def _shortened(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}")
