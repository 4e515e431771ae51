"""The prompts of many conversations as a chat template renders them, with two renderings for each instead of three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from fusion.data.chat_fields import has_fields
from fusion.data.chat_template import (
    AnswerPlace,
    check_answer,
    find_answer,
    refuse_second_thought,
    render,
    rendered_as_learned,
    uses_chat_template,
)
from fusion.data.chat_tokens import control_pattern, prompt_context
from fusion.data.encode import plain_text
from fusion.data.prompt_format import Message, PromptFormat


class RenderedPrompt(NamedTuple):
    """The text of a prompt, in which control tokens are what they spell."""

    text: str
    lead: str
    """As in `AnswerPlace`."""
    context: str
    """As in `Prompt`."""


class _Frame(NamedTuple):
    """What a template writes around answers in conversations of one form."""

    between: str
    """Between the generation prompt and the answer."""
    lead: str
    after: str


class RenderedPrompts:
    """Renders prompts, and remembers what stood around the answer in the first conversation with the same roles.

    Of the next one only its generation prompt and the whole conversation are rendered. It is taken where the whole is that
    prompt, what is remembered, and the response: so every prompt still begins with what generation begins with, and prompt,
    response and end are what the template renders.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Render with the tokenizer's chat template."""
        self.tokenizer = tokenizer
        self._uses_template: dict[PromptFormat, bool] = {}
        self._frames: dict[tuple[PromptFormat, tuple[str, ...]], _Frame] = {}

    def draft(
        self, messages: Sequence[Message], response: str, prompt_format: PromptFormat
    ) -> RenderedPrompt | str | None:
        """Return the prompt, checked with the response where there is one; a plain prompt as its text alone.

        None for one that spells control tokens, or that is to be looked at as `encode` does it. Raises ValueError as
        `uses_chat_template`, `find_answer` and `check_answer`.
        """
        if has_fields(messages, prompt_format):
            return None
        if not messages or not self._applies(prompt_format):
            return plain_text(messages, prompt_format)
        pattern, prepared = control_pattern(self.tokenizer), prompt_format.prepare(messages)
        contents = [message["content"] for message in prepared]
        if not all(isinstance(each, str) and not pattern.search(each) for each in contents):
            return None
        place = (
            self._answered(prepared, response, prompt_format)
            if response
            else find_answer(self.tokenizer, prepared, prompt_format)
        )
        if place is None:
            return None
        return RenderedPrompt(place.prompt, place.lead, prompt_context(self.tokenizer, place.prompt))

    def _applies(self, prompt_format: PromptFormat) -> bool:
        if prompt_format not in self._uses_template:
            self._uses_template[prompt_format] = uses_chat_template(self.tokenizer, prompt_format)
        return self._uses_template[prompt_format]

    def _answered(self, messages: list[Message], response: str, prompt_format: PromptFormat) -> AnswerPlace | None:
        """Return where the response stands, or None where it is not where the first one stood."""
        key = prompt_format, tuple(message["role"] for message in messages)
        # white space before a response could be the template's own: `find_answer` tells the two apart
        if prompt_format.answer_prefix is not None or key not in self._frames or response[0].isspace():
            place = find_answer(self.tokenizer, messages, prompt_format)
            check_answer(self.tokenizer, messages, response, place, prompt_format)
            self._remember(key, messages, place)
            return place
        frame = self._frames[key]
        generation = render(self.tokenizer, messages, prompt_format, generate=True)
        place = AnswerPlace(generation + frame.between, frame.lead, frame.after)
        refuse_second_thought(self.tokenizer, response, place)
        learned = rendered_as_learned(self.tokenizer, messages, response, place, prompt_format)
        return place if learned else None

    def _remember(self, key: tuple[PromptFormat, tuple[str, ...]], messages: list[Message], place: AnswerPlace) -> None:
        if key not in self._frames:
            generation = render(self.tokenizer, messages, key[0], generate=True)
            self._frames[key] = _Frame(place.prompt[len(generation) :], place.lead, place.after)
