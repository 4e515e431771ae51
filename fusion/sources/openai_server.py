"""A server with OpenAI's completions API, and how prompts are written for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fusion.sources.http import Endpoint
from fusion.sources.prompt_logprobs import mismatch
from fusion.sources.prompt_text import PromptText
from fusion.tokenizers import tokenize

_PROBE = "One, two, three, four, five, six"


@dataclass(frozen=True, eq=False)
class Server:
    """A server, and how prompts are written for it."""

    endpoint: Endpoint
    model: str
    tokenizer: Any
    sends_ids: bool
    """Whether prompts are token ids rather than text."""
    extra_body: Mapping[str, Any]
    """Additional fields of each request."""

    def post(self, ids: Sequence[int], body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a prompt of token ids. Raises ValueError that names the server and the model."""
        try:
            prompt = self._prompt(ids)
        except ValueError as error:
            raise self.error(error) from error
        return self._send(prompt, body)

    def check(self, ids: Sequence[int]) -> None:
        """Raise ValueError where these ids cannot be sent."""
        self._prompt(ids)

    def prepare(self) -> None:
        """Ask the server what has to be known before prompts are sent from several threads."""
        if not self.sends_ids:
            _ = self.prompt_text

    @cached_property
    def prompt_text(self) -> PromptText:
        """How texts are written for the server, which is asked once whether it puts a token before each."""
        [ids] = tokenize(self.tokenizer, [_PROBE])
        text = PromptText(self.tokenizer, adds_bos=False).of(ids)
        read = (self._send(text, {"max_tokens": 1, "temperature": 0}).get("usage") or {}).get("prompt_tokens", len(ids))
        if read not in (len(ids), len(ids) + 1):
            raise ValueError(mismatch(read, len(ids), returned_tokens=[], sent_tokens=[text]))
        return PromptText(self.tokenizer, adds_bos=read > len(ids))

    def error(self, error: ValueError) -> ValueError:
        """Return the error with the server and the model before it."""
        begin = f"{self.endpoint.url}, model {self.model}"
        return error if str(error).startswith(self.endpoint.url) else ValueError(f"{begin}: {error}")

    def _prompt(self, ids: Sequence[int]) -> str | list[int]:
        return list(ids) if self.sends_ids else self.prompt_text.of(ids)

    def _send(self, prompt: str | list[int], body: Mapping[str, Any]) -> dict[str, Any]:
        whole = {"model": self.model, "prompt": prompt, **body, **self.extra_body}
        try:
            answer = self.endpoint.post(whole)
        except ValueError as error:
            wants_text = isinstance(prompt, list) and "string" in str(error)
            hint = " This server takes no token ids: set backend.prompt to text." if wants_text else ""
            raise ValueError(f"{error}{hint}") from error
        try:
            return check_answer(answer)
        except ValueError as error:
            raise self.error(error) from error


class _AnswerPart(BaseModel):
    """A part of an answer; fields that we do not read may be anything."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class _Entry(_AnswerPart):
    """What a server says of one token."""

    logprob: float


class _Echo(_AnswerPart):
    """Log-probabilities of an echoed prompt."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None

    @model_validator(mode="after")
    def _are_as_many(self) -> _Echo:
        lists = (self.tokens or [], self.token_logprobs or [], self.top_logprobs or [])
        if lists[0] and lists[2] and len(set(map(len, lists))) > 1:
            raise ValueError(
                f"tokens, token_logprobs and top_logprobs have {', '.join(map(str, map(len, lists)))} items"
            )
        return self


class _Choice(_AnswerPart):
    """One completion."""

    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Echo | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[int, _Entry] | None] | None = None


class _Usage(_AnswerPart):
    """What a server says it read."""

    prompt_tokens: int = 0


class _Answer(_AnswerPart):
    """A whole answer."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def check_answer(answer: Any) -> dict[str, Any]:
    """Return an answer as it is. Raises ValueError, with the field, for one that has not the form of a completions API."""
    try:
        _Answer.model_validate(answer)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, mistake["loc"])) or "all of it"
        raise ValueError(
            f"its answer has not the form of OpenAI's completions API ({place}: {mistake['msg']}). Is backend.url the base of "
            "that API, such as http://localhost:8000/v1?"
        ) from None
    return answer
