"""Which columns of a data set are prompt and response, where its settings do not say: the names that people use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from fusion.data.reading.conversations import ROLE_KEYS


class Layout(NamedTuple):
    """How the columns of a data set make examples."""

    prompt: str
    """Prompt, with columns in braces; empty for none."""
    response: str
    """Response, with columns in braces."""
    optional: str | None = None
    """A column that follows the prompt after an empty line, in rows where it is not empty."""
    messages: str | None = None
    """Column with a conversation, in place of prompt and response."""
    system: str | None = None
    """Column with a system message."""
    history: str | None = None
    """A column with earlier questions and answers."""
    raw_text: bool = False
    """Whether rows are texts that no chat template may wrap."""

    def describe(self) -> str:
        """What is what, for people."""
        system = f", system message from {self.system}" if self.system else ""
        if self.messages:
            return f"conversations from {self.messages}{system}"
        if self.raw_text:
            return f"raw text from {self.response[1:-1]}"
        prompt = " and ".join(name for name in (self.prompt[1:-1], self.optional) if name)
        response = f", response from {self.response[1:-1]}" if self.response else ", no response"
        earlier = f", earlier turns from {self.history}" if self.history else ""
        return f"prompt from {prompt}{response}{system}{earlier}"


CONVERSATIONS = ("messages", "conversations", "conversation")
"""Columns with a conversation, as OpenAI and ShareGPT name them."""
PROMPTS = {"instruction": ("input", "context"), "prompt": (), "question": ("context",), "query": (), "problem": ()}
"""Columns with a prompt, and those that may follow it."""
RESPONSES = ("response", "completion", "output", "answer", "solution", "chosen")
"""Columns with a response."""
CHOICES = ("choices", "options")
"""Columns with answers to choose among, which belong to a question and have no form of their own."""
BESIDE_TEXT = ("code", "summary", "highlights", "sql", "target", "translation", "answers")
"""Columns that tell that a column `text` beside them is no text to go on with, but what something is made of."""
SYSTEMS = ("system", "system_prompt")
HISTORY = "history"
"""A column beside a prompt with the questions and answers before it, as Alpaca and ChatGLM have them."""


def find_layout(columns: Collection[str], path: str) -> Layout:
    """Return the layout that the columns of a data set tell. Raises ValueError, with the columns, where they tell none."""
    system = next((name for name in SYSTEMS if name in columns), None)
    if conversation := next((name for name in CONVERSATIONS if name in columns), None):
        return Layout("", "", messages=conversation, system=system)
    prompt = next((name for name in PROMPTS if name in columns), None)
    response = next((name for name in RESPONSES if name in columns), None)
    if prompt and response:
        _refuse_ambiguous(prompt, columns, path)
        history = HISTORY if HISTORY in columns else None
        return Layout(f"{{{prompt}}}", f"{{{response}}}", _optional(prompt, columns), system=system, history=history)
    if "chosen" in columns:
        return Layout("", "", messages="chosen", system=system)
    if "text" in columns and not prompt and not response and not set(BESIDE_TEXT).intersection(columns):
        return Layout("", "{text}", raw_text=True)
    raise ValueError(
        f"{path}: the columns {_listed(columns)} do not tell prompt and response. Set prompt and response, such as "
        'prompt: "{question}" and response: "{answer}", or messages to the column with conversations; for prompts alone, which '
        "sources answer (data.responses), set response: null."
    )


def _refuse_ambiguous(prompt: str, columns: Collection[str], path: str) -> None:
    """Raise ValueError where columns that are left would be missed in what is asked, or could be the answer as well."""
    if choices := next((name for name in CHOICES if name in columns), None):
        raise ValueError(
            f"{path}: column {choices} has answers to choose among, and how they are written into the prompt is not known. Set "
            f'prompt and response, such as prompt: "{{{prompt}}}\\n{{{choices}}}" and response: "{{answer}}".'
        )
    if {"answer", "solution"}.issubset(columns):
        raise ValueError(
            f'{path}: both answer and solution could be the response. Set response: "{{solution}}" for the workings, or '
            'response: "{answer}" for the result.'
        )


def find_prompt(columns: Collection[str], path: str, response: str | None) -> Layout:
    """Return the layout for a response that is set; where it is None, a conversation may be the prompt.

    Raises ValueError, with the columns, where none is known to hold prompts.
    """
    system = next((name for name in SYSTEMS if name in columns), None)
    conversation = next((name for name in CONVERSATIONS if name in columns), None)
    if response is None and conversation:
        return Layout("", "", messages=conversation, system=system)
    prompt = next((name for name in PROMPTS if name in columns), None)
    if prompt is None:
        raise ValueError(
            f"{path}: none of the columns {_listed(columns)} is known to hold prompts. Set prompt, such as "
            'prompt: "{question}", or prompt: "" for none.'
        )
    history = HISTORY if HISTORY in columns else None
    return Layout(f"{{{prompt}}}", response or "", _optional(prompt, columns), system=system, history=history)


def find_response(columns: Collection[str], path: str, prompt: str) -> str:
    """Return the response for a prompt that is set, as columns tell it. Raises ValueError where they do not."""
    found = next((name for name in RESPONSES if name in columns and f"{{{name}" not in prompt), None)
    if found is None:
        raise ValueError(
            f"{path}: none of the columns {_listed(columns)} is known to hold responses. Set response, "
            'such as response: "{answer}", or response: null for prompts alone.'
        )
    return f"{{{found}}}"


def _has_role(turn: Mapping[str, Any]) -> bool:
    return any(key in turn for key in ROLE_KEYS)


def _optional(prompt: str, columns: Collection[str]) -> str | None:
    return next((name for name in PROMPTS[prompt] if name in columns), None)


def _listed(columns: Collection[str]) -> str:
    return ", ".join(map(str, columns)) or "(none)"


def is_conversation(value: Any) -> bool:
    """Return whether a value is a list of turns, such as the `prompt` of TRL's conversational data sets."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) and _has_role(turn) for turn in value)
    )
