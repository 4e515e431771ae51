"""A check that is a Python function of the user's: see `RewardFunction` for how it is read and called."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from typing_extensions import override

from fusion.data.example import Example
from fusion.responses.base import Check
from fusion.responses.response import Response
from fusion.responses.reward_function import FIXED, RewardFunction


class FunctionCheck(Check):
    """Passes responses to which a Python function of your own gives a reward of at least `at_least`.

    It is called as TRL calls reward functions: `name(prompts=[...], completions=[...], **columns)`, once for each prompt with
    all responses to it, the prompt and its columns as often as there are responses. It returns a number, True or False for
    each. The file runs in this process, with all that you may do, and what it is given are copies.
    """

    kind: Literal["function"] = "function"
    path: str = Field(min_length=1)
    """The Python file."""
    name: str = Field(min_length=1)
    """The function in it."""
    columns: list[str] = Field(default=[])
    """Columns of the data that the function gets, each as an argument of that name."""
    conversational: bool = False
    """Whether prompts are lists of messages, and completions lists of one message, as in TRL's conversational data, instead of
    texts."""
    at_least: float = 0.5
    """The least reward with which a response passes; True is 1."""

    @field_validator("columns")
    @classmethod
    def _are_no_other_arguments(cls, columns: list[str]) -> list[str]:
        if wrong := [name for name in columns if name in FIXED or not name.isidentifier()]:
            raise ValueError(
                f"{wrong[0]!r} cannot be an argument of its own beside {' and '.join(FIXED)}; rename the column in the data"
            )
        return columns

    @property
    @override
    def files(self) -> list[Path]:
        return [Path(self.path)]

    @override
    def prepare(self) -> None:
        self._function()

    @override
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        return [passes for passes, _ in self.verdicts(example, responses)]

    @override
    def verdicts(self, example: Example, responses: Sequence[Response]) -> list[tuple[bool, float]]:
        if not responses:
            return []
        texts: list[Any] = [response.text for response in responses]
        if self.conversational:
            texts = [[{"role": "assistant", "content": text}] for text in texts]
        prompt: Any = list(example.messages) if self.conversational else example.prompt
        columns = {name: example.columns.get(name) for name in self.columns}
        prompts, *values = ([copy.deepcopy(value) for _ in responses] for value in (prompt, *columns.values()))
        rewards = self._function()(prompts, texts, dict(zip(columns, values, strict=True)), example.prompt)
        return [(reward >= self.at_least, reward) for reward in rewards]

    def _function(self) -> RewardFunction:
        return RewardFunction.load(Path(self.path), self.name, self.columns)
