"""Examples whose prompt is too long for a model of the run, and leaving them out (`data.filter_overlong_prompts`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fusion.data.datasets import DataSet, LeftOut
from fusion.data.encoding import Conversation, encode_batch, encode_prompt_batch
from fusion.data.example import Example
from fusion.stages.limits.models import context_lengths
from fusion.stages.prompts import prompt_formats

if TYPE_CHECKING:
    from fusion.stages.context import RunContext

TEMPLATE_TOKENS = 512
"""More than a chat template writes around a conversation: texts that are shorter than a limit by this are not encoded."""
PLAIN_TOKENS = 16
"""The same where there is no template: the tokens that open and end a text."""


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
    measures = (_heldout_measures if heldout else _training_measures)(context, name)
    numbers = possibly_longer(context, name, examples, min((m.limit - m.more for m in measures), default=math.inf))
    found: dict[int, Overlong] = {}
    for measure in measures:
        lengths = measure.lengths([examples[number] for number in numbers])
        for number, tokens in zip(numbers, lengths, strict=True):
            if tokens > measure.limit:
                found.setdefault(number, Overlong(number, tokens, measure.limit))
    yield from (found[number] for number in sorted(found))


def possibly_longer(context: RunContext, name: str, examples: Sequence[Example], tokens: int | float) -> list[int]:
    """Numbers of the examples that may take more tokens than so many: each token has a byte at least, the template's aside."""
    formats, chat = prompt_formats(context, name), bool(context.tokenizers[name].chat_template)

    def size(example: Example) -> int:
        form, messages = formats(example, example.messages), [*example.messages, *(example.look_ahead or ())]
        texts = [form.shots, form.answer_prefix or "", example.response, *(str(each["content"]) for each in messages)]
        around = TEMPLATE_TOKENS if chat and form.template != "plain" else PLAIN_TOKENS
        return around + sum(len(text.encode("utf-8", "surrogatepass")) + 1 for text in texts)

    return [number for number, example in enumerate(examples) if size(example) > tokens]


class Measure(NamedTuple):
    """What of examples is measured, and how much it may be."""

    lengths: Callable[[Sequence[Example]], list[int]]
    """Tokens of each."""
    limit: int
    more: int
    """How many of them are not the example's own."""


def _training_measures(context: RunContext, name: str) -> list[Measure]:
    """The prompt alone within data.max_length, as it is cut; with what stands before it within what the model reads."""

    def own(examples: Sequence[Example]) -> list[int]:
        return [1 + tokens for tokens in prompt_lengths(context, name, examples, shots=False)]

    def whole(examples: Sequence[Example]) -> list[int]:
        ahead = bool(getattr(context.models[name], "look_ahead", False))
        return [1 + tokens for tokens in prompt_lengths(context, name, examples, look_ahead=ahead)]

    measures = [Measure(own, context.config.data.max_length, 1)]
    if (read := context_lengths(context).get(name)) is not None:
        measures.append(Measure(whole, read.tokens, 1))
        if context.has_generated_responses and name in context.responding.sources:
            measures.append(_answered(context, name, read.tokens, context.responding.settings.max_new_tokens))
    return measures


def _heldout_measures(context: RunContext, name: str) -> list[Measure]:
    read, evaluation = context_lengths(context).get(name), context.config.evaluation
    if read is None or not is_evaluated(context, name):
        return []
    measures = [Measure(lambda examples: text_lengths(context, name, examples), read.tokens, 0)]
    if domains := set(evaluation.exact_match):
        measures.append(_answered(context, name, read.tokens, evaluation.max_new_tokens, domains))
    return measures


def _answered(
    context: RunContext, name: str, limit: int, max_new_tokens: int, domains: Collection[str] | None = None
) -> Measure:
    """The prompt and an answer, where one is written: in these domains, or in all."""

    def lengths(examples: Sequence[Example]) -> list[int]:
        asked = [domains is None or example.domain in domains for example in examples]
        found = prompt_lengths(context, name, examples)
        return [tokens + max_new_tokens if each else 0 for tokens, each in zip(found, asked, strict=True)]

    return Measure(lengths, limit, max_new_tokens)


def is_evaluated(context: RunContext, name: str) -> bool:
    """Whether a model of the run reads the held-out examples."""
    return name == "pivot" or context.config.evaluation.original_models


def prompt_lengths(
    context: RunContext, name: str, examples: Sequence[Example], *, shots: bool = True, look_ahead: bool = False
) -> list[int]:
    """How many tokens of a model the prompts of examples take, with or without what stands before them."""
    formats, conversations = prompt_formats(context, name), []
    for example in examples:
        messages = (look_ahead and example.look_ahead) or example.messages
        form = formats(example, messages)
        conversations.append(Conversation(messages, "", form if shots else replace(form, shots=""), example.origin))
    return [len(prompt.ids) for prompt in encode_prompt_batch(context.tokenizers[name], conversations)]


def text_lengths(context: RunContext, name: str, examples: Sequence[Example]) -> list[int]:
    """How many tokens of a model whole examples take, uncut."""
    formats = prompt_formats(context, name)
    conversations = [Conversation(e.messages, e.response, formats(e, e.messages), e.origin) for e in examples]
    return encode_batch(context.tokenizers[name], conversations).lengths.tolist() if conversations else []


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
