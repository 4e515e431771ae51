"""From the rows of a data set to examples, and why a row makes none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fusion.data.example import Example
from fusion.data.prompt_format import Message
from fusion.data.reading.columns import Layout, find_layout, find_prompt, find_response, is_conversation
from fusion.data.reading.conversations import SHOWN, read_pairs, read_turns, split_answer, without_answer, without_nulls
from fusion.data.reading.fill import columns_of, fill
from fusion.data.reading.row import Row, json_value

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class ExampleMaker:
    """Makes an example of each row, as the settings of a data set say; see `fusion.data.datasets.read` for each of them."""

    domain: str
    prompt: str = AUTO
    response: str | None = AUTO
    tests: str | None = None
    system: str | None = None
    messages: str | None = None
    template: Literal["plain"] | None = None
    prompt_chars: int | None = None
    response_chars: int | None = None
    look_ahead: str | None = None
    as_raw_text: bool = False
    optional: str | None = None
    """A column that follows the prompt after an empty line, where it is not empty."""
    history: str | None = None
    """A column with the questions and answers before the prompt, in rows where it is not empty."""
    kept_columns: Sequence[str] = ()
    """Columns whose values an example keeps, for a check of generated responses."""

    def resolved(self, columns: Iterable[str], path: str) -> tuple[ExampleMaker, str]:
        """Return the maker with `auto` replaced by what the columns tell, and how it reads them, for people.

        Raises ValueError, with the columns, where they do not tell.
        """
        known = list(columns)
        self._refuse_bare_columns(known, path)
        if self.messages or (self.prompt != AUTO and self.response != AUTO):
            return self, self._describe()
        if self.prompt == AUTO:
            layout = find_layout(known, path) if self.response == AUTO else find_prompt(known, path, self.response)
            return self._with_layout(layout), layout.describe()
        found = replace(self, response=find_response(known, path, self.prompt))
        return found, found._describe()

    def _refuse_bare_columns(self, columns: Sequence[str], path: str) -> None:
        """Raise ValueError for the bare name of a column, as other tools take it: here it would be the text of each row."""
        forms = {"prompt": self.prompt, "response": self.response, "system": self.system, "tests": self.tests}
        for name, form in forms.items():
            if form in columns and form != AUTO:
                raise ValueError(
                    f'{path}: {name} is "{form}", which is the name of a column, and as it stands would be the text of every '
                    f'row; write "{{{form}}}".'
                )

    def _with_layout(self, layout: Layout) -> ExampleMaker:
        plain = "plain" if layout.raw_text else self.template
        response = layout.response if self.response == AUTO else self.response
        system = self.system or (layout.system and f"{{{layout.system}}}")
        return replace(
            self, prompt=layout.prompt, response=response, messages=layout.messages, optional=layout.optional, system=system,
            history=layout.history, template=plain,
        )  # fmt: skip

    def _describe(self) -> str:
        if self.messages:
            return f"conversations from {self.messages}"
        response = "no response" if self.response is None else f"response {self.response!r}"
        return f"prompt {self.prompt!r}, {response}"

    @property
    def columns(self) -> set[str]:
        """The columns that it reads."""
        forms = [self.system, self.tests, self.look_ahead, *([] if self.messages else [self.prompt, self.response])]
        named = {name for form in forms if form for name in columns_of(form)} - {"last_message"}
        more = {self.messages, "tools"} if self.reads_conversations else set()
        return named | {name for name in [*more, *self.kept_columns, self.optional, self.history] if name}

    @property
    def needed(self) -> list[str]:
        """The columns that at least one row must have."""
        return sorted(self.columns - {"tools", self.optional, self.history})

    @property
    def reads_conversations(self) -> bool:
        """Whether a column may hold turns, and a column `tools` what they may call."""
        return bool(self.messages) or _one_column(self.prompt) is not None

    def example(self, row: Row) -> Example | str:
        """Return the example of a row, or why it makes none. Raises ValueError, with the row, for what cannot be read."""
        messages, answer, missing = self._conversation(row) if self.messages else self._texts(row)
        tools = _tools(row) if self.reads_conversations else ()
        if missing is None and self.as_raw_text:
            messages, answer = [], "\n".join([*_contents(messages, tools, row), answer])
        messages, answer = _cut(messages, answer, self.prompt_chars, self.response_chars)
        if missing or not (answer or self.response is None):
            return missing or "no response"
        return Example(
            tuple(messages),
            answer,
            self.domain,
            "plain" if self.as_raw_text else self.template,
            None if self.look_ahead is None else _look_ahead_messages(messages, self.look_ahead, row),
            None if self.tests is None else fill(self.tests, row, lists=True),
            tools,
            row.place,
            {name: _kept_value(name, row) for name in self.kept_columns},
        )

    def drops_answer(self, row: Row) -> bool:
        """Whether a row of prompts alone ends with an answer, which is not read: it would tell what is asked for."""
        column = self.messages or _one_column(self.prompt)
        value = row.values.get(column) if self.response is None and column else None
        said = read_turns(value, row, str(column)) if self.messages or is_conversation(value) else []
        return bool(said) and said[-1]["role"] == "assistant"

    def _conversation(self, row: Row) -> tuple[list[Message], str, str | None]:
        column = str(self.messages)
        turns = read_turns(row.values.get(column), row, column)
        if self.response is None:
            prompt = without_answer(turns)
            missing = "nothing is asked" if turns else "no turns"
            return self._with_system(prompt, row), "", None if prompt else missing
        messages, answer, missing = split_answer(turns, row, column)
        return self._with_system(messages, row), answer, missing

    def _texts(self, row: Row) -> tuple[list[Message], str, str | None]:
        """Prompt and response from columns with texts, or with turns as TRL's conversational data sets have them."""
        turns = {form: self._turns(form, row) for form in (self.prompt, self.response) if form}
        if self.response and (said := turns[self.response]):
            before = [] if any(turn["role"] == "user" for turn in said) else turns.get(self.prompt) or self._asked(row)
            messages, answer, missing = split_answer([*_weighted(before), *said], row, str(_one_column(self.response)))
            return self._with_system(messages, row), answer, missing
        asked = turns.get(self.prompt) or self._asked(row)
        if self.history:
            asked = [*read_pairs(row.values.get(self.history), row, self.history), *asked]
        if self.response is None:
            asked = without_answer(asked)
        answer = "" if self.response is None else fill(self.response, row)
        unasked = bool(columns_of(self.prompt)) and not any(message["content"] for message in asked)
        return self._with_system([_bare(turn) for turn in asked], row), answer, "no prompt" if unasked else None

    def _turns(self, form: str, row: Row) -> list[dict[str, Any]]:
        column = _one_column(form)
        value = None if column is None else row.values.get(column)
        return read_turns(value, row, str(column)) if is_conversation(value) else []

    def _asked(self, row: Row) -> list[Message]:
        if not self.prompt:
            return []
        more = fill(f"{{{self.optional}}}", row) if self.optional else ""
        return [{"role": "user", "content": "\n\n".join(text for text in (fill(self.prompt, row), more) if text)}]

    def _with_system(self, messages: list[Message], row: Row) -> list[Message]:
        """Return the messages with the system message in front, where they have none of their own."""
        text = fill(self.system, row) if self.system else ""
        if not text or any(message["role"] == "system" for message in messages):
            return messages
        return [{"role": "system", "content": text}, *messages]


def _one_column(form: str | None) -> str | None:
    """Return the column of a text that is one column in braces and nothing else."""
    bare = bool(form) and form[0] == "{" and form[-1] == "}" and form[1:-1].isidentifier()
    return form[1:-1] if form and bare else None


def _bare(turn: Message) -> Message:
    return {key: value for key, value in turn.items() if key != "weight"}


def _weighted(turns: Iterable[Message]) -> Iterator[Message]:
    yield from ({"weight": 1, **turn} for turn in turns)


def _contents(messages: list[Message], tools: tuple[dict[str, Any], ...], row: Row) -> list[str]:
    lost = [key for key in SHOWN if any(message.get(key) for message in messages)] + ["tools"] * bool(tools)
    if lost:
        raise ValueError(
            f"{row.place}: it has {lost[0]}, which raw text (as_raw_text) has no place for. Leave as_raw_text out, or the row."
        )
    return [message["content"] for message in messages]


def _tools(row: Row) -> tuple[dict[str, Any], ...]:
    """Return the functions of a row's column `tools`: a list of JSON schemas, or JSON in a text."""
    value = row.values.get("tools")
    try:
        tools = json.loads(value) if isinstance(value, str) and value.strip() else without_nulls(value)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{row.place}: tools is a text, and no JSON: {error}. It is a list of JSON schemas; rename the column if it means "
            "something else."
        ) from error
    if not tools:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError(
            f"{row.place}: tools is {tools!r:.60}; it is a list of JSON schemas of functions; rename the column if "
            "it means something else."
        )
    return tuple(tools)


def _kept_value(name: str, row: Row) -> Any:
    """Return a column's value as JSON has it; None where the row lacks it."""
    try:
        return json_value(row.values.get(name), name)
    except ValueError as error:
        raise ValueError(f"{row.place}: {error}") from error


def _cut(
    messages: list[Message], answer: str, prompt_chars: int | None, response_chars: int | None
) -> tuple[list[Message], str]:
    if prompt_chars:
        at = answer.find(" ", prompt_chars) + 1 or len(answer)
        messages, answer = [*messages, {"role": "user", "content": answer[:at]}], answer[at:]
    if response_chars and len(answer) > response_chars:
        answer = answer[:response_chars].rsplit(" ", 1)[0]
    return messages, answer


def _look_ahead_messages(messages: list[Message], form: str, row: Row) -> tuple[Message, ...] | None:
    """Return the messages with the last one from the template `form`; None where that changes nothing."""
    *before, last = messages or [{"role": "user", "content": ""}]
    ahead = [*before, {**last, "content": fill(form, row, also={"last_message": last["content"]})}]
    return tuple(ahead) if ahead != messages else None
