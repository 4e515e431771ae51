"""How one model's prompts are written, and where its answers end."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Message = dict[str, Any]
"""One turn of a conversation: its `role` and its `content`; `tool_calls` and others that chat templates read may follow."""

Template = Literal["auto", "chat", "plain"]
"""How a prompt is rendered: by the chat template, as plain text, or by the template where there is one (auto)."""


@dataclass(frozen=True)
class PromptFormat:
    """How one model's prompts are written, and where its answers end; the same in training, reading and generation."""

    template: Template = "auto"
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables for the chat template, such as `enable_thinking`."""
    answer_prefix: str | None = None
    """Text between the template's generation prompt, or a plain prompt, and every answer; None takes what the template itself
    writes there."""
    fold_system_message: bool = False
    """Put a system message before the first user message, for templates that refuse one."""
    shots: str = ""
    """Text before the first user message, such as worked examples."""
    stop: tuple[int | str, ...] = ()
    """Token ids and texts at which answers end, besides the end of turn. The first is the end that is trained and read."""
    tools: tuple[dict[str, Any], ...] = ()
    """Functions that the assistant may call, as JSON schemas, for the chat template."""
    date: datetime.date | None = None
    """The date that a template which asks for today's gets; None is today."""

    def for_prompt(self, messages: Sequence[Message], template: Template | None = None) -> PromptFormat:
        """Return the format of one prompt, whose data set may say `plain`. Raw text, without messages, is plain."""
        if not messages:
            return _RAW_TEXT
        return self if template is None else replace(self, template=template)

    def prepare(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages as they are rendered: the system message folded in, worked examples in front."""
        prepared = _fold_system_message(messages) if self.fold_system_message else list(messages)
        if not self.shots:
            return prepared
        first = next((n for n, message in enumerate(prepared) if message["role"] == "user"), 0)
        shown = {**prepared[first], "content": self.shots + prepared[first]["content"]}
        return [*prepared[:first], shown, *prepared[first + 1 :]]

    @property
    def stop_texts(self) -> list[str]:
        """The texts among `stop`."""
        return [stop for stop in self.stop if isinstance(stop, str)]

    @property
    def stop_ids(self) -> list[int]:
        """The token ids among `stop`."""
        return [stop for stop in self.stop if isinstance(stop, int)]

    def key(self) -> dict[str, Any]:
        """Return what rows depend on, for the keys of what is made; the date counts through the prompts it is in."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "date"}
        return {name: value for name, value in shown.items() if value != getattr(PromptFormat(), name)}

    def __hash__(self) -> int:
        """Formats are kept apart in tables of what was computed for them."""
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((json.dumps(self.key(), sort_keys=True, default=str), self.date))


_RAW_TEXT = PromptFormat(template="plain")


def _fold_system_message(messages: Sequence[Message]) -> list[Message]:
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, *rest = messages
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system["content"]}, *rest]
    return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
