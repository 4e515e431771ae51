"""What makes an answer good enough to learn from: of all answers to one prompt, which pass.

An answer that is empty, or was cut off where that is not allowed, never comes here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fusion.core.settings import Settings
from fusion.data.datasets import Example
from fusion.grading import answers, sandbox
from fusion.responses.response import Response

Of = Literal["number", "option", "text"]
READ: dict[str, Callable[[str], str | None]] = {
    "number": answers.number,
    "option": answers.option,
    "text": lambda text: text.strip() or None,
}
"""What of an answer is compared: its last number (in its last box, where there is one), the option it names, or all of it."""


class Check(Settings):
    """Looks at the answers to one prompt."""

    reads_reference: ClassVar[bool] = False
    """Whether it compares answers with the data's response, which must be there."""
    reads_likelihood: ClassVar[bool] = False
    """Whether it asks what the other sources make of an answer."""

    @abstractmethod
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        """Whether each passes."""


class Ended(Check):
    """Every answer passes."""

    kind: Literal["ended"] = "ended"

    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        """All do."""
        return [True for _ in responses]


class FinalAnswer(Check):
    """What the answer comes to is what the data's response comes to."""

    kind: Literal["final_answer"] = "final_answer"
    reads_reference: ClassVar[bool] = True
    of: Of = "number"
    """What both come to: the last number, the option named, or all of the text."""

    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        """Nothing found on either side is no agreement."""
        return [_same(self.of, response.text, example.response) for response in responses]


class Tests(Check):
    """The program in the answer passes the tests of its row (`tests` of the data set), in the sandbox of `fusion evaluate`.

    The last block between three backticks is the program, or the whole answer where there is none.
    """

    kind: Literal["tests"] = "tests"
    allow_code_execution: bool = False
    """Programs that models wrote run on this machine, contained; nothing runs unless this is set."""
    seconds: int = Field(default=10, gt=0)
    """CPU time of one program."""

    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        """Raises ValueError where the row has no tests."""
        if not example.tests:
            raise ValueError(f"The example that begins {example.prompt[:60]!r} has no tests; choose rows that do.")
        limits = sandbox.Limits(seconds=self.seconds)
        programs = [f"{answers.code(response.text)}\n\n{example.tests}\n" for response in responses]
        return [sandbox.run(program, limits).passed for program in programs]


class Agreement(Check):
    """Several sources, and more than a share of all answers to the prompt, come to the same."""

    kind: Literal["agreement"] = "agreement"
    of: Of = "number"
    """What they come to: the last number, the option named, or all of the text."""
    share: float = Field(default=0.5, ge=0, lt=1)
    """Of the answers to the prompt."""
    sources: int = Field(default=2, ge=1)
    """Least number of sources among those that agree."""

    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        """An answer that comes to nothing never passes."""
        return [self._enough(one, responses) for one in responses]

    def _enough(self, one: Response, responses: Sequence[Response]) -> bool:
        agree = [other for other in responses if _same(self.of, one.text, other.text)]
        return len(agree) > self.share * len(responses) and len({other.source for other in agree}) >= self.sources


class Likelihood(Check):
    """The other sources find the answer likely enough, in the mean over them."""

    kind: Literal["likelihood"] = "likelihood"
    reads_likelihood: ClassVar[bool] = True
    at_least: float = Field(lt=0)
    """In nats per byte, below 0: of ordinary text models give each byte about -0.6."""

    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        """Raises ValueError where it is not known."""
        if any(response.others is None for response in responses):
            raise ValueError("An answer was not read by the other sources; likelihood needs two sources or more.")
        return [response.others >= self.at_least for response in responses]  # type: ignore[operator]


def _same(of: Of, one: str, other: str) -> bool:
    mine, theirs = READ[of](one), READ[of](other)
    if mine is None or theirs is None:
        return False
    return answers.same_number(mine, theirs) if of == "number" else mine == theirs


AnyCheck = Annotated[Ended | FinalAnswer | Tests | Agreement | Likelihood, Field(discriminator="kind")]
