"""The form of a completions API's answer, checked before anything is read of it: a server may send whatever it likes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class _Part(BaseModel):
    """A part of an answer; fields that we do not read may be anything."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class _Entry(_Part):
    """What a server says of one token."""

    logprob: float


class _Echo(_Part):
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


class _Choice(_Part):
    """One completion."""

    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Echo | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[int, _Entry] | None] | None = None


class _Usage(_Part):
    """What a server says it read."""

    prompt_tokens: int = 0


class _Answer(_Part):
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
