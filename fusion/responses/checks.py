"""Checks: which of all responses to one prompt are good enough to train on.

Responses that are empty, or truncated where that is not allowed, are dropped before any check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from fusion.data.example import Example
from fusion.grading import answers, sandbox
from fusion.grading.final_answer import EXTRACT, AnswerPart, same_answer
from fusion.responses.base import Check, Judgement
from fusion.responses.function_check import FunctionCheck
from fusion.responses.response import Response


class EndedCheck(Check):
    """Passes every response."""

    kind: Literal["ended"] = "ended"

    @override
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        return [True for _ in responses]


class FinalAnswerCheck(Check):
    """Passes responses with the same final answer as the response of the data set.

    Where either has none, they differ.
    """

    kind: Literal["final_answer"] = "final_answer"
    needs_reference: ClassVar[bool] = True
    compare: AnswerPart = "number"
    """The final answer: the last number, the option named, or all of the text."""

    @override
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        return [same_answer(self.compare, response.text, example.response) for response in responses]

    def finds(self, text: str) -> bool:
        """Whether a text has such a final answer."""
        return EXTRACT[self.compare](text) is not None


class TestsCheck(Check):
    """Passes responses whose program passes the tests of its row (`tests` of the data set), in a sandbox.

    The program is the block of code, or the longest part that is Python, that defines what the tests read. The tests run in a
    process of their own and call the program in another; test functions and classes that they do not call are run as pytest
    and unittest run them. Raises ValueError where the row has no tests, or such as pass any program.
    """

    kind: Literal["tests"] = "tests"
    allow_code_execution: bool = False
    """Programs that models wrote run on this machine, contained; nothing runs unless this is set."""
    seconds: int = Field(default=10, gt=0)
    """CPU time of one program."""
    trust_inside: bool = True
    """Whether a program also passes by tests that only its own process can run (they patch it, or pass it objects of
    their own), and where only its own objects can tell whether they are equal: there a program can fake that it passes."""

    @override
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        return self.judge(example, responses).passed

    @override
    def judge(self, example: Example, responses: Sequence[Response]) -> Judgement:
        if wrong := self.cannot_judge(example):
            raise ValueError(wrong)
        assert example.tests is not None
        limits = sandbox.Limits(seconds=self.seconds)
        names = answers.names_in_tests(example.tests)
        programs = [answers.extract_code(response.text, names) for response in responses]
        results = [sandbox.judge_program(program, example.tests, limits) for program in programs]
        broken = next((result.reason for result in results if result.tests_broken), "")
        reasons = [self._why_not(result) for result in results]
        passed = [not reason for reason in reasons]
        return Judgement(passed, reasons, "" if any(passed) else broken)

    def _why_not(self, result: sandbox.ProgramResult) -> str:
        """Why a program does not pass; empty where it does."""
        if result.passed and result.ran_inside and not self.trust_inside:
            return f"trust_inside is false, and what its own process decided was {result.ran_inside}"
        return "" if result.passed else result.reason

    @override
    def cannot_judge(self, example: Example) -> str:
        row = f"The example that begins {example.prompt[:60]!r}" + (f" ({example.origin})" if example.origin else "")
        if not (example.tests or "").strip():
            return f"{row} has no tests; choose rows that do."
        if why := sandbox.why_they_test_nothing(example.tests or ""):
            return (
                f"{row} has tests that cannot tell a right program from a wrong one: {why}. Have data.train[...].tests call "
                'what is to be tested, as in tests: "{test}\\ncheck({entry_point})", or leave such rows out.'
            )
        return ""


class AgreementCheck(Check):
    """Passes responses whose final answer several sources, and more than a share of all responses, have in common.

    A response without a final answer never passes.
    """

    kind: Literal["agreement"] = "agreement"
    compares_sources: ClassVar[bool] = True
    compare: AnswerPart = "number"
    """The final answer: the last number, the option named, or all of the text."""
    share: float = Field(default=0.5, ge=0, lt=1)
    """More than this share of the responses to the prompt must agree."""
    min_sources: int = Field(default=2, ge=1)
    """Least number of sources among those that agree."""

    @override
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        return [self._passes(response, responses) for response in responses]

    def _passes(self, response: Response, responses: Sequence[Response]) -> bool:
        agree = [other for other in responses if same_answer(self.compare, response.text, other.text)]
        return len(agree) > self.share * len(responses) and len({other.source for other in agree}) >= self.min_sources


class LikelihoodCheck(Check):
    """Passes responses that are likely enough under the other sources, in the mean over them.

    Raises ValueError where their likelihood is not known.
    """

    kind: Literal["likelihood"] = "likelihood"
    compares_sources: ClassVar[bool] = True
    needs_likelihood: ClassVar[bool] = True
    min_logprob_per_byte: float = Field(lt=0)
    """In nats, below 0: models give each byte of ordinary text about -0.6."""

    @override
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        if any(response.other_sources_logprob is None for response in responses):
            raise ValueError("An answer was not read by the other sources; likelihood needs two sources or more.")
        return [response.other_sources_logprob >= self.min_logprob_per_byte for response in responses]  # type: ignore[operator]


class KnowsReferenceCheck(Check):
    """Passes the responses of the source that finds the response of the data set likeliest, per byte.

    For open-ended prompts, of which no answer is the right one: who writes like the references finds them likely. Raises
    ValueError where their likelihood is not known.
    """

    kind: Literal["knows_reference"] = "knows_reference"
    needs_reference: ClassVar[bool] = True
    needs_reference_likelihood: ClassVar[bool] = True

    @override
    def __call__(self, example: Example, responses: Sequence[Response]) -> list[bool]:
        known = [response.reference_logprob for response in responses if response.reference_logprob is not None]
        if len(known) < len(responses):
            raise ValueError(
                f"The response of the data set was not read by the sources ({example.origin}); see {self.kind}."
            )
        return [response.reference_logprob == max(known) for response in responses]


AnyCheck = Annotated[
    EndedCheck | FinalAnswerCheck | TestsCheck | AgreementCheck | LikelihoodCheck | KnowsReferenceCheck | FunctionCheck,
    Field(discriminator="kind"),
]
