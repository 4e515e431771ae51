"""The backend `openai`: rows and completions from a server with OpenAI's completions API and prompt logprobs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.data.answer_end import end_of_turn
from fusion.data.encode import Encoded
from fusion.models.generate import Completion, GenerationSettings
from fusion.models.loading import vocabulary_size
from fusion.sources.base import Backend, Progress, SourceRequest
from fusion.sources.http import Endpoint
from fusion.sources.prompt_logprobs import TokenLogprobs, rows_from_logprobs

TOKEN_ID = "token_id:"  # how vLLM writes a token with return_tokens_as_token_ids, instead of its text


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
    """How a prompt is sent: as token ids, or as text for a server that takes no ids and makes the same tokens of it."""
    extra_body: dict[str, Any] = Field(default={})
    """Additional fields of each request, such as `return_tokens_as_token_ids: true`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is kept and shown nowhere."""
    concurrency: int = Field(default=8, ge=1)
    """Number of concurrent requests."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds to wait for an answer."""
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
        if "@" in parts.netloc:
            raise ValueError("must hold no name or password; name a variable with the key in api_key_env")
        return value.rstrip("/")

    @override
    def open(self, request: SourceRequest) -> OpenAISource:
        return OpenAISource(self, self._endpoint(), request.tokenizer, request.k)

    @override
    def open_generator(self, request: SourceRequest) -> OpenAIGenerator:
        end = end_of_turn(request.tokenizer, dataclasses.replace(request.prompt_format, stop=()))
        ids = [*request.prompt_format.stop_ids, *([] if end is None else [end])]
        stop = [*request.prompt_format.stop_texts, *(request.tokenizer.decode([id]) for id in ids)]
        return OpenAIGenerator(self, self._endpoint(), request.tokenizer, stop)

    def _endpoint(self) -> Endpoint:
        key = os.environ.get(self.api_key_env, "") if self.api_key_env else None
        if key == "":
            raise ValueError(
                f"backend.api_key_env names {self.api_key_env}, which is not set. Export the key under it."
            )
        return Endpoint(f"{self.url}/completions", key, self.timeout, self.max_retries, self.backoff)


@dataclass(frozen=True)
class OpenAIGenerator:
    """Completions from a server, one request for each prompt, several at a time."""

    settings: OpenAI
    endpoint: Endpoint
    tokenizer: Any
    stop: Sequence[str]
    """Texts at which answers end; that of the end-of-turn token in case the server does not stop there by itself."""

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        completions = []
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            for choices in pool.map(partial(self._request, generation=settings), prompts):
                completions.append(choices)
                if progress is not None:
                    progress(1)
        return completions

    def _request(self, ids: Sequence[int], generation: GenerationSettings) -> list[Completion]:
        prompt = (
            list(ids)
            if self.settings.prompt == "ids"
            else self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        )
        body = {
            "model": self.settings.model, "prompt": prompt,
            "max_tokens": generation.max_new_tokens, "n": generation.num_return_sequences,
            "temperature": generation.temperature, "top_p": generation.top_p, "seed": generation.seed_for([ids]),
        }  # fmt: skip
        stop = {"stop": list(self.stop)} if self.stop else {}
        choices = self.endpoint.post({**body, **stop, **self.settings.extra_body})["choices"]
        return [Completion(choice["text"], choice["finish_reason"] == "stop") for choice in choices]


@dataclass(frozen=True, eq=False)
class OpenAISource:
    """Rows from a server: one request for each text, several at a time."""

    settings: OpenAI
    endpoint: Endpoint
    tokenizer: Any
    k: int

    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`. Raises ValueError where the server refuses, or answers for other tokens than were sent."""
        read = (
            read_prompt_logprobs
            if self.settings.logprobs_api == "prompt_logprobs"
            else partial(read_echo, ids_by_text=self._ids_by_text())
        )
        parts, size = [], vocabulary_size(self.tokenizer)
        pool = ThreadPoolExecutor(self.settings.concurrency)
        try:
            for number, choice in enumerate(pool.map(self._request, texts)):
                text = texts[number]
                try:
                    logprobs_per_token = read(choice, text.input_ids, decoded=self._decoded)
                    parts.append(rows_from_logprobs(text, logprobs_per_token[text.start :], self.k, size, number))
                except ValueError as error:
                    raise ValueError(f"{self.endpoint.url}, model {self.settings.model}: {error}") from error
                if progress is not None:
                    progress(len(text.input_ids))
        finally:
            pool.shutdown(cancel_futures=True)
        return LogitRows.cat(parts)

    def _request(self, text: Encoded) -> dict[str, Any]:
        ids = text.input_ids
        prompt = (
            ids if self.settings.prompt == "ids" else self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        )
        logprobs = (
            {"echo": True, "logprobs": self.k} if self.settings.logprobs_api == "echo" else {"prompt_logprobs": self.k}
        )
        exact = {"return_token_ids": True} if self.settings.logprobs_api == "prompt_logprobs" else {}
        body = {"model": self.settings.model, "prompt": prompt, "max_tokens": 1, "temperature": 1.0}
        return self.endpoint.post({**body, **logprobs, **exact, **self.settings.extra_body})["choices"][0]

    def _decoded(self, ids: Iterable[int]) -> list[str]:
        return self.tokenizer.batch_decode([[id] for id in ids], clean_up_tokenization_spaces=False)

    def _ids_by_text(self) -> dict[str, int]:
        """Return the id of each token text that belongs to one token only."""
        texts = self._decoded(range(vocabulary_size(self.tokenizer)))
        ids: dict[str, int] = {}
        for id, text in enumerate(texts):
            ids[text] = -1 if text in ids else id
        return {text: id for text, id in ids.items() if id >= 0}


def read_prompt_logprobs(choice: Mapping[str, Any], sent: Sequence[int], decoded: Any) -> Sequence[TokenLogprobs]:
    """Parse vLLM's extension: at each token of a prompt {"123": {"logprob": -0.1, "rank": 1}, ...}, null at the first.

    Raises ValueError where the server read other tokens than `sent`: every token of a prompt is among its own entries.
    """
    listed = choice.get("prompt_logprobs")
    if listed is None:
        raise ValueError(
            "the answer has no prompt_logprobs. Use logprobs_api: echo, or a server with this extension (vllm serve)."
        )
    returned = choice.get("prompt_token_ids")
    entries_per_token = [_logprobs(entries) for entries in listed]
    wrong = [n for n, entries in enumerate(entries_per_token) if n and n < len(sent) and sent[n] not in entries]
    if (returned is not None and list(returned) != list(sent)) or len(entries_per_token) != len(sent) or wrong:
        raise ValueError(
            _mismatch(
                len(entries_per_token) if returned is None else len(returned),
                len(sent),
                returned_tokens=returned or [],
                sent_tokens=sent,
            )
        )
    return entries_per_token


def _logprobs(entries: Mapping[str, Any] | None) -> dict[int, float]:
    return {int(id): float(entry["logprob"]) for id, entry in (entries or {}).items()}


def read_echo(
    choice: Mapping[str, Any], sent: Sequence[int], decoded: Any, ids_by_text: Mapping[str, int]
) -> Sequence[TokenLogprobs]:
    """Parse an echoed prompt: log-probabilities by token text; texts that several tokens share are left out.

    Raises ValueError where the server read other tokens than `sent`, as far as their texts tell.
    """
    logprobs = choice.get("logprobs") or {}
    if len(logprobs.get("tokens") or []) < len(sent) or not logprobs.get("top_logprobs"):
        raise ValueError(
            f"{len(sent)} tokens were sent, and {len(logprobs.get('tokens') or [])} came back with log-probabilities. The "
            "server must support echo with logprobs for prompts; try logprobs_api: prompt_logprobs, or another server."
        )
    tokens = logprobs["tokens"][: len(sent)]
    texts = decoded(sent)
    wrong = [
        n for n, (token, id) in enumerate(zip(tokens, sent, strict=True)) if token not in (texts[n], f"{TOKEN_ID}{id}")
    ]
    if wrong:
        raise ValueError(
            _mismatch(len(tokens), len(sent), returned_tokens=tokens[wrong[0] :], sent_tokens=texts[wrong[0] :])
        )
    entries_per_token: list[dict[int, float]] = [{}]
    for id, own, top in zip(sent[1:], logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=False):
        entries = {_id(text, ids_by_text): float(value) for text, value in (top or {}).items()}
        entries_per_token.append({**entries, id: float(own)})
        entries_per_token[-1].pop(-1, None)
    return entries_per_token


def _id(text: str, ids_by_text: Mapping[str, int]) -> int:
    return int(text.removeprefix(TOKEN_ID)) if text.startswith(TOKEN_ID) else ids_by_text.get(text, -1)


def _mismatch(returned: int, sent: int, *, returned_tokens: Sequence[Any], sent_tokens: Sequence[Any]) -> str:
    return (
        f"it answered for other tokens than were sent: {returned} for {sent}, {returned_tokens[:3]} where {sent_tokens[:3]} "
        "stood. The tokenizer at the source's path must be the server's own, and the server must add nothing to the prompt "
        "(prompt: ids helps)."
    )
