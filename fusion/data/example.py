"""Examples: a prompt, its response and a domain; and how a set of them is counted and compared."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from fusion.data.prompt_format import Message


@dataclass(frozen=True)
class Example:
    """A prompt and its response. Each model renders the prompt its own way; the response is the same bytes for all."""

    messages: tuple[Message, ...]
    """The prompt: dictionaries with `role` and `content`; none for raw text."""
    response: str
    """What is learned: the answer, or the completion."""
    domain: str
    """A name for examples of one kind, by which results are shown."""
    template: Literal["plain"] | None = None
    """`plain` where no model may wrap the prompt in its chat template (raw text); None leaves it to the model."""
    look_ahead: tuple[Message, ...] | None = None
    """The prompt that sources with `look_ahead: true` read instead; the pivot never reads it. None where it is the same."""
    tests: str | None = None
    """A program that fails where a response is wrong, to check generated responses. None where there is none."""
    tools: tuple[dict[str, Any], ...] = ()
    """Functions that the assistant may call, as JSON schemas, for chat templates that write them into the prompt."""
    origin: str = field(default="", compare=False)
    """Where it was read, for messages: the file and the row. It is no part of what an example is."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of its row, as JSON has their values, for a check of generated responses that names them."""

    @cached_property
    def id(self) -> str:
        """Hash of the content: equal prompt, response and template, equal id, wherever the example came from.

        The domain is a label and does not count. Nor does `look_ahead`: the pivot's rows do not depend on it, and a source's
        cache has it in its key.
        """
        return self._hash_with(self.response)

    @cached_property
    def prompt_id(self) -> str:
        """Hash of the prompt: equal for all responses to one prompt."""
        return self._hash_with("")

    def _hash_with(self, response: str) -> str:
        parts = [self.messages, response, self.template, *([self.tools] if self.tools else [])]
        content = json.dumps(parts, ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    @property
    def prompt(self) -> str:
        """The contents of the messages, for people to read."""
        return "\n".join(message["content"] for message in self.messages)

    @property
    def question(self) -> str:
        """What is asked, as it is compared between sets: system messages, case, width and white space do not count.

        Raw text, which asks nothing, is compared whole.
        """
        asked = "\n".join(text for turn in prompt_turns(self) for text in turn)
        text = asked or f"{self.prompt}\n{self.response}"
        return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


_SPACE = re.compile(r"\s+")


def prompt_turns(example: Example) -> tuple[tuple[str, ...], ...]:
    """Return role and content, and the calls of tools if there are any, of each message that is no system message."""
    return tuple(
        (m["role"], m["content"], *([json.dumps(m["tool_calls"])] if m.get("tool_calls") else []))
        for m in example.messages
        if m["role"] != "system"
    )


def count_by_domain(examples: Iterable[Example]) -> dict[str, int]:
    """Return the number of examples of each domain, in order of appearance."""
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.domain] = counts.get(example.domain, 0) + 1
    return counts


def other_answers(examples: Sequence[Example]) -> list[str | None]:
    """Return for each example the id of one with another response to the same prompt, None where there is none.

    Of several it is the next in order of appearance, after the last the first. System messages may differ between equal
    prompts, and raw text, which has no prompt, has no other answer.
    """
    answers: dict[tuple[tuple[str, ...], ...], dict[str, str]] = {}
    for example in examples:
        answers.setdefault(prompt_turns(example), {}).setdefault(example.response, example.id)
    return [
        _next_answer(answers[prompt_turns(example)], example.response) if prompt_turns(example) else None
        for example in examples
    ]


def _next_answer(ids: Mapping[str, str], response: str) -> str | None:
    known = list(ids)
    return ids[known[(known.index(response) + 1) % len(known)]] if len(known) > 1 else None


def unique_examples(examples: Iterable[Example]) -> Iterator[Example]:
    """Yield each content once, where it first appears."""
    seen: set[str] = set()
    for example in examples:
        if example.id not in seen:
            seen.add(example.id)
            yield example
