"""Examples whose prompt is too long for a model of the run, and leaving them out (`data.filter_overlong_prompts`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fusion.data.datasets import DataSet, Example, LeftOut
from fusion.data.encode import encode, encode_prompt
from fusion.data.prompt_format import Message
from fusion.stages.limits.models import context_lengths
from fusion.stages.prompts import prompt_format

if TYPE_CHECKING:
    from fusion.stages.context import RunContext

TEMPLATE_TOKENS = 512
"""More than a chat template writes around a conversation: texts that are shorter than a limit by this are not encoded."""


class Overlong(NamedTuple):
    """An example that is too long for a model."""

    number: int
    """Which it is among those that were asked about."""
    tokens: int
    """What is too long, in tokens of the model: the prompt and one more, or what is read or written held out."""
    limit: int


def without_overlong(context: RunContext, sets: Sequence[DataSet], *, heldout: bool = False) -> list[DataSet]:
    """Return the data sets without the examples that are too long for a model, which they count among their `left_out`.

    Raises ValueError where nothing is left.
    """
    kept = [_without(context, each, heldout) for each in sets]
    if sets and not any(each.examples for each in kept):
        first = next(each.left_out[-1] for each in kept if each.left_out)
        raise ValueError(f"data.filter_overlong_prompts leaves nothing of {sets[0].path}: {first}.")
    return kept


def overlong(
    context: RunContext, name: str, examples: Sequence[Example], *, heldout: bool = False
) -> Iterator[Overlong]:
    """Yield the examples that are too long for a model.

    In training and validation those whose prompt leaves no room for a response within `data.max_length` or what the model
    reads; with `heldout` those that it cannot be measured on: the whole text is too long, or the prompt and an answer.
    """
    looks = (_heldout_lengths if heldout else _training_lengths)(context, name)
    least = min((limit - behind for _length, limit, behind in looks), default=math.inf)
    for number in possibly_longer(context, name, examples, least):
        for length, limit, _behind in looks:
            if (tokens := length(examples[number])) > limit:
                yield Overlong(number, tokens, limit)
                break


def possibly_longer(context: RunContext, name: str, examples: Sequence[Example], tokens: int | float) -> list[int]:
    """Numbers of the examples that may take more tokens than so many: each token has a byte at least, the template's aside."""

    def size(example: Example) -> int:
        shots = prompt_format(context, name, example).shots
        messages = [*example.messages, *(example.look_ahead or ())]
        return sum(
            len(text.encode("utf-8", "surrogatepass")) for text in [shots, example.response, *_contents(messages)]
        )

    return [number for number, example in enumerate(examples) if size(example) + TEMPLATE_TOKENS > tokens]


Length = tuple[Callable[[Example], int], int, int]
"""How many tokens of an example count, how many may, and how many of them are not the example's own."""


def _training_lengths(context: RunContext, name: str) -> list[Length]:
    """The prompt alone within data.max_length, as it is cut; with what stands before it within what the model reads."""

    def own(example: Example) -> int:
        form = replace(prompt_format(context, name, example), shots="")
        return 1 + len(encode_prompt(context.tokenizers[name], example.messages, prompt_format=form).ids)

    def longer(example: Example) -> int:
        ahead = getattr(context.models[name], "look_ahead", False) and example.look_ahead
        return 1 + prompt_tokens(context, name, example, ahead or example.messages)

    lengths: list[Length] = [(own, context.config.data.max_length, 1)]
    if (read := context_lengths(context).get(name)) is not None:
        lengths.append((longer, read.tokens, 1))
        if context.has_generated_responses and name in context.responding_sources:
            lengths.append(_answered(context, name, read.tokens, context.response_settings.max_new_tokens))
    return lengths


def _heldout_lengths(context: RunContext, name: str) -> list[Length]:
    read = context_lengths(context).get(name)
    if read is None or not is_evaluated(context, name):
        return []

    def whole(example: Example) -> int:
        form = prompt_format(context, name, example)
        return len(encode(context.tokenizers[name], example.messages, example.response, prompt_format=form).input_ids)

    evaluation = context.config.evaluation
    domains = set(evaluation.exact_match)
    return [(whole, read.tokens, 0), _answered(context, name, read.tokens, evaluation.max_new_tokens, domains)]


def _answered(
    context: RunContext, name: str, limit: int, max_new_tokens: int, domains: Collection[str] | None = None
) -> Length:
    """The prompt and an answer, where one is written: in these domains, or in all."""

    def length(example: Example) -> int:
        asked = domains is None or example.domain in domains
        return prompt_tokens(context, name, example, example.messages) + max_new_tokens if asked else 0

    return length, limit, max_new_tokens


def is_evaluated(context: RunContext, name: str) -> bool:
    """Whether a model of the run reads the held-out examples."""
    return name == "pivot" or context.config.evaluation.original_models


def prompt_tokens(context: RunContext, name: str, example: Example, messages: Sequence[Message]) -> int:
    """How many tokens of a model the prompt of an example takes."""
    form = prompt_format(context, name, example, messages)
    return len(encode_prompt(context.tokenizers[name], messages, prompt_format=form).ids)


def _without(context: RunContext, data: DataSet, heldout: bool) -> DataSet:
    kept, left_out = data.examples, list(data.left_out)
    for name in context.models:
        found = {each.number: each for each in overlong(context, name, kept, heldout=heldout)}
        if found:
            first = next(iter(found.values()))
            reason = f"too long for {name if name == 'pivot' else f'source {name}'} ({first.limit} tokens at most)"
            left_out.append(LeftOut(reason, len(found), kept[first.number].origin))
            kept = [example for number, example in enumerate(kept) if number not in found]
    return replace(data, examples=kept, left_out=left_out)


def _contents(messages: Sequence[Message]) -> Iterator[str]:
    return (str(message["content"]) for message in messages)
