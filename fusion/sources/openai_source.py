"""The backend `openai`: rows and completions from a server with OpenAI's completions API."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.core.secrets import read_key
from fusion.data.answer_end import end_of_turn
from fusion.data.encode import Encoded
from fusion.models.loading import vocabulary_size
from fusion.runtime.console import console
from fusion.sources.base import Backend, Progress, SourceRequest
from fusion.sources.echo import measure_lag, read_echo
from fusion.sources.http import Endpoint
from fusion.sources.listed import SourceCheck
from fusion.sources.openai_generator import OpenAIGenerator
from fusion.sources.openai_server import Server
from fusion.sources.prompt_logprobs import TokenLogprobs, read_prompt_logprobs, rows_from_logprobs
from fusion.sources.prompt_text import whole_characters
from fusion.sources.token_names import token_names
from fusion.tokenizers import tokenize

PROBE, PROBE_ENDS = "One, two, three, four, five, six", (" seven", "\nThe", " and", "7", ".")


class OpenAI(Backend):
    """A server with OpenAI's completions API. It gives log-probabilities, so the mean and std of the logits are unknown.

    The tokenizer at the source's `path` must be the server's own: the tokens that come back are compared with those sent.
    Mind the provider's terms; some forbid training on its outputs.
    """

    kind: Literal["openai"] = "openai"
    can_generate: ClassVar[bool] = True
    runtime_settings: ClassVar[frozenset[str]] = frozenset(
        {"api_key_env", "concurrency", "timeout", "max_retries", "backoff"}
    )
    url: str
    """Base URL, version included, for example http://localhost:8000/v1."""
    model: str
    """Name of the model on the server."""
    logprobs_api: Literal["echo", "prompt_logprobs"] = "echo"
    """`echo`: the prompt comes back with log-probabilities by token text; tokens that share a text cannot be told apart and
    are left out. `prompt_logprobs`: vLLM's extension, by token id, exact; take it where the server has it."""
    prompt: Literal["ids", "text"] = "ids"
    """How a prompt is sent: as token ids, or as text for a server that takes no ids. Text is sent only where this tokenizer
    makes the same ids of it, and the server's tokens are compared with them."""
    sampling_fields: Literal["all", "openai"] = "all"
    """What is sent so that answers depend on the run's settings alone, and not on the server's defaults or the model's
    generation_config. `all`: penalties, top_k and min_p off, and the ids at which answers end. `openai`: only what OpenAI's API
    has, for servers that refuse other fields; what else they do by default stays."""
    extra_body: dict[str, Any] = Field(default={})
    """Additional fields of each request, such as `return_tokens_as_token_ids: true`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, sent as `Authorization: Bearer` to `url` alone, kept and shown
    nowhere."""
    concurrency: int = Field(default=8, ge=1)
    """Number of concurrent requests."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds to wait for a whole answer."""
    max_retries: int = Field(default=5, ge=0)
    """How often a request is sent again that failed for the moment: no answer, or status 408, 429 or 500 and above."""
    backoff: float = Field(default=1.0, gt=0)
    """Seconds before the first such attempt, doubled before each other, unless the server names a time."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("must begin with http:// or https://")
        if parts.query or parts.fragment:
            raise ValueError("must be a base URL without ? and #, for /completions is put behind it")
        return value.rstrip("/")

    @override
    def open(self, request: SourceRequest) -> OpenAISource:
        check = SourceCheck(vocabulary_size(request.tokenizer))
        return OpenAISource(self, self._server(request), request.tokenizer, request.k, check)

    @override
    def open_generator(self, request: SourceRequest) -> OpenAIGenerator:
        end = end_of_turn(request.tokenizer, dataclasses.replace(request.prompt_format, stop=()))
        ids = [*request.prompt_format.stop_ids, *([] if end is None else [end])]
        texts = request.prompt_format.stop_texts
        return OpenAIGenerator(self._server(request), self.concurrency, self.sampling_fields == "all", ids, texts)

    def _server(self, request: SourceRequest) -> Server:
        return Server(self._endpoint(), self.model, request.tokenizer, self.prompt == "ids", self.extra_body)

    def _endpoint(self) -> Endpoint:
        key = read_key(self.api_key_env) if self.api_key_env else None
        return Endpoint(f"{self.url}/completions", key, self.timeout, self.max_retries, self.backoff)


@dataclass(frozen=True, eq=False)
class OpenAISource:
    """Rows from a server: one request for each text, several at a time."""

    settings: OpenAI
    server: Server
    tokenizer: Any
    k: int
    check: SourceCheck
    lags: dict[int | None, int] = field(default_factory=dict)
    """By the control token that a prompt begins with, or None: how far its log-probabilities lag behind; see `echo.py`."""

    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`. Raises ValueError where the server refuses, or answers for other tokens than were sent."""
        read, size, exact = self._reader(texts), self.check.vocabulary, self.settings.logprobs_api == "prompt_logprobs"
        parts, pool = [], ThreadPoolExecutor(self.settings.concurrency)
        try:
            for number, answer in enumerate(pool.map(self._request, map(self._sendable, texts))):
                text = texts[number]
                try:
                    listed = [*read(answer, self._sendable(text)), *({} for _ in text.input_ids)][: len(text.input_ids)]
                    parts.append(
                        rows_from_logprobs(
                            text, listed[text.start :], self.k, size, number, check=self.check, likeliest=exact
                        )
                    )
                except ValueError as error:
                    shown = self.tokenizer.decode(text.input_ids[text.start :][:20])
                    raise self.server.error(ValueError(f"text {number}, {shown!r}: {error}")) from error
                if progress is not None:
                    progress(len(text.input_ids))
        finally:
            pool.shutdown(cancel_futures=True)
        try:
            self.check.conclude()
        except ValueError as error:
            raise self.server.error(error) from error
        return LogitRows.cat(parts)

    def _request(self, ids: Sequence[int]) -> dict[str, Any]:
        exact = self.settings.logprobs_api == "prompt_logprobs"
        kind = {"prompt_logprobs": self.k, "return_token_ids": True} if exact else {"echo": True, "logprobs": self.k}
        return self.server.post(ids, {"max_tokens": 1, "temperature": 1.0, **kind})

    def _sendable(self, text: Encoded) -> list[int]:
        """Return the ids that can be sent: as text, without a character that was cut in two at the end."""
        return text.input_ids if self.server.sends_ids else whole_characters(self.tokenizer, text.input_ids)

    def _reader(
        self, texts: Sequence[Encoded]
    ) -> Callable[[Mapping[str, Any], Sequence[int]], Sequence[TokenLogprobs]]:
        """Return what reads an answer; where prompts are echoed, after asking how the server places its numbers."""
        if self.settings.logprobs_api == "prompt_logprobs":
            self.server.prepare()
            return read_prompt_logprobs
        names = token_names(self.tokenizer)
        for text in texts:
            if self._first(text.input_ids) not in self.lags:
                self.lags[self._first(text.input_ids)] = self._measured_lag(text)
        return lambda answer, sent: read_echo(answer, sent, names, self.lags[self._first(sent)])

    def _first(self, ids: Sequence[int]) -> int | None:
        return ids[0] if ids[0] in token_names(self.tokenizer).control else None

    def _measured_lag(self, text: Encoded) -> int:
        first = self._first(text.input_ids)
        try:
            lag = measure_lag(self._request, token_names(self.tokenizer), self._probes(text.input_ids[: text.start]))
        except ValueError as error:
            raise self.server.error(error) from error
        if lag:
            begin = "with an ordinary token" if first is None else f"with {self.tokenizer.decode([first])!r}"
            console.print(
                f"  {self.settings.model}: where a prompt begins {begin}, the server's log-probabilities stand one token too "
                "early; they are put back, and the true token's is known only if it is among the K likeliest",
                markup=False,
            )
        return lag

    def _probes(self, prompt: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return two prompts that differ in their last token alone, and can be sent: behind this prompt, else of our own."""
        own = [*([prompt[0]] if self._first(prompt) is not None else []), *tokenize(self.tokenizer, [PROBE])[0]]
        reason = ValueError("no two tokens of this tokenizer could be sent to try it out.")
        for stem in (prompt, own):
            found = []
            for end in dict.fromkeys(ids[0] for ids in tokenize(self.tokenizer, PROBE_ENDS)):
                try:
                    self.server.check([*stem, end])
                except ValueError as error:
                    reason = error
                else:
                    found.append([*stem, end])
            if len(found) > 1:
                return found[0], found[1]
        raise reason
