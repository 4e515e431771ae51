"""The base class of all checks."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from fusion.core.settings import Settings
from fusion.data.example import Example
from fusion.responses.response import Response


class Judgement(NamedTuple):
    """What a check says of the responses to a prompt."""

    passed: list[bool]
    """For each of the responses, whether it passes."""
    reasons: list[str]
    """For each, why it does not pass; empty where it passes, or the check does not say."""
    tests_broken: str = ""
    """What keeps the tests of the row from running, whatever the response; empty where they run, or there are none."""


class Check(Settings):
    """Decides which responses to one prompt pass; the base of all checks."""

    needs_reference: ClassVar[bool] = False
    """Whether it compares responses with that of the data set, which must be there."""
    compares_sources: ClassVar[bool] = False
    """Whether it compares the responses of several sources to one prompt."""
    needs_likelihood: ClassVar[bool] = False
    """Whether it needs the log-probability of each response under the other sources."""
    needs_reference_likelihood: ClassVar[bool] = False
    """Whether it needs the log-probability of the data set's own response under the source of each response."""

    @abstractmethod
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        """Return, for each of the responses to a prompt, whether it passes."""

    def cannot_judge(self, example: Example) -> str:
        """Say, with the way out, why it can judge no response to this prompt; empty where it can, as far as its row tells."""
        return ""

    def judge(self, example: Example, responses: Sequence[Response]) -> Judgement:
        """Return which of the responses to a prompt pass, and what is known of those that do not."""
        passed = self(example, responses)
        return Judgement(passed, [""] * len(passed))

    def verdicts(self, example: Example, responses: Sequence[Response]) -> list[tuple[bool, float]]:
        """Return, for each of the responses to a prompt, whether it passes and its reward, from judging it once.

        Of rewards more is better: 1 where a response passes and 0 where it does not, but for checks that have their own.
        """
        return [(passes, float(passes)) for passes in self(example, responses)]

    @property
    def files(self) -> list[Path]:
        """Files that decide, with the settings, which responses pass."""
        return []

    def key(self) -> dict[str, Any]:
        """Return everything that decides which responses pass: the settings, and the contents of the files that they name."""
        files = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files}
        return self.model_dump() | ({"files": files} if files else {})

    def prepare(self) -> None:
        """Raise an error, with the way out, where it could not judge any response: it is called before sources respond."""
