"""Calls of tools in a conversation, in either form that chat templates ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fusion.data.prompt_format import Message


def argument_forms(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield the messages with the arguments of calls as objects, then as JSON texts: templates ask for either."""
    if not any(message.get("tool_calls") for message in messages):
        yield list(messages)
        return
    for form in (_as_object, _as_text):
        yield [_with_calls(message, form) for message in messages]


def _with_calls(message: Message, form: Callable[[Any], Any]) -> Message:
    calls = message.get("tool_calls")
    return message if not calls else {**message, "tool_calls": [form(call) for call in calls]}


def _as_object(call: Any) -> Any:
    """Return a call whose arguments are an object, where they are the text of one."""
    return _with_arguments(call, lambda given: _parsed(given) if isinstance(given, str) else given)


def _as_text(call: Any) -> Any:
    return _with_arguments(
        call, lambda given: given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    )


def _with_arguments(call: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(call, Mapping):
        return call
    function = call.get("function", call)
    if not isinstance(function, Mapping) or "arguments" not in function:
        return call
    changed = {**function, "arguments": change(function["arguments"])}
    return {**call, "function": changed} if "function" in call else changed


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
