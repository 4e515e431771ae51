"""Rows from a server that speaks OpenAI's completions protocol and gives the log-probabilities of a prompt's tokens."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from fusion.core.rows import LogitRows
from fusion.data.encode import Encoded, end_of_turn
from fusion.models.generate import Completion, GenerationSettings
from fusion.models.loading import vocabulary_size
from fusion.sources.base import Backend, Progress, SourceRequest
from fusion.sources.http import Endpoint
from fusion.sources.prompt_logprobs import TokenLogprobs, rows_from_logprobs

TOKEN_ID = "token_id:"  # how some servers write a token on request, instead of its text


class OpenAI(Backend):
    """A server gives log-probabilities, so the moments of the logits are unknown. The tokenizer at `path` must be the
    server's own: what comes back is checked against what was sent. Mind the provider's terms; some forbid training on this.
    """

    kind: Literal["openai"] = "openai"
    writes: ClassVar[bool] = True
    idle: ClassVar[frozenset[str]] = frozenset({"api_key_env", "concurrency", "timeout", "retries", "backoff"})
    url: str
    """Up to and with the version, for example http://localhost:8000/v1."""
    model: str
    """The name the server knows the model by."""
    logprobs_api: Literal["echo", "prompt_logprobs"] = "echo"
    """`echo`: the prompt comes back with log-probabilities by token text; tokens that share a text cannot be told apart and
    are left out. `prompt_logprobs`: vLLM's extension, by token id, exact; take it where the server has it."""
    prompt: Literal["ids", "text"] = "ids"
    """How a prompt is sent: as token ids, or as text for a server that takes no ids and makes the same tokens of it."""
    extra_body: dict[str, Any] = Field(default={})
    """Further fields of each request, such as `return_tokens_as_token_ids: true`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is kept and shown nowhere."""
    concurrency: int = Field(default=8, ge=1)
    """Requests on the way at once."""
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

    def open(self, wanted: SourceRequest) -> OpenAISource:
        """Read the key. Raises ValueError where the variable that should hold it is empty."""
        return OpenAISource(self, self._endpoint(), wanted.tokenizer, wanted.k)

    def open_writer(self, wanted: SourceRequest) -> OpenAIGenerator:
        """Read the key, as `open` does."""
        stop = end_of_turn(wanted.tokenizer, wanted.template)
        return OpenAIGenerator(
            self, self._endpoint(), wanted.tokenizer, None if stop is None else wanted.tokenizer.decode([stop])
        )

    def _endpoint(self) -> Endpoint:
        key = os.environ.get(self.api_key_env, "") if self.api_key_env else None
        if key == "":
            raise ValueError(
                f"backend.api_key_env names {self.api_key_env}, which is not set. Export the key under it."
            )
        return Endpoint(f"{self.url}/completions", key, self.timeout, self.max_retries, self.backoff)


@dataclass(frozen=True)
class OpenAIGenerator:
    """A server that answers prompts."""

    how: OpenAI
    endpoint: Endpoint
    tokenizer: Any
    end: str | None
    """The text of the token that ends a turn, in case the server does not know it."""

    def generate(
        self, prompts: Sequence[Sequence[int]], how: GenerationSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """See `Writer.write`."""
        answers = []
        with ThreadPoolExecutor(self.how.concurrency) as pool:
            for found in pool.map(partial(self._ask, how=how), prompts):
                answers.append(found)
                if progress is not None:
                    progress(1)
        return answers

    def _ask(self, ids: Sequence[int], how: GenerationSettings) -> list[Completion]:
        prompt = (
            list(ids) if self.how.prompt == "ids" else self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        )
        asked = {
            "model": self.how.model, "prompt": prompt, "max_tokens": how.max_new_tokens, "n": how.num_return_sequences,
            "temperature": how.temperature, "top_p": how.top_p, "seed": how.seed_for([ids]),
        }  # fmt: skip
        stop = {} if self.end is None else {"stop": [self.end]}
        choices = self.endpoint.post({**asked, **stop, **self.how.extra_body})["choices"]
        return [Completion(choice["text"], choice["finish_reason"] == "stop") for choice in choices]


@dataclass(frozen=True, eq=False)
class OpenAISource:
    """One request for each text, several on the way at once."""

    how: OpenAI
    endpoint: Endpoint
    tokenizer: Any
    k: int

    def rows(self, texts: Sequence[Encoded], progress: Progress | None = None) -> LogitRows:
        """See `Source.rows`. Raises ValueError where the server refuses, or answers for other tokens than were sent."""
        read = (
            read_prompt_logprobs
            if self.how.logprobs_api == "prompt_logprobs"
            else partial(read_echo, names=self._ids_by_text())
        )
        parts, size = [], vocabulary_size(self.tokenizer)
        pool = ThreadPoolExecutor(self.how.concurrency)
        try:
            for number, choice in enumerate(pool.map(self._ask, texts)):
                text = texts[number]
                try:
                    listed = read(choice, text.input_ids, decoded=self._decoded)
                    parts.append(rows_from_logprobs(text, listed[text.start :], self.k, size, number))
                except ValueError as error:
                    raise ValueError(f"{self.endpoint.url}, model {self.how.model}: {error}") from error
                if progress is not None:
                    progress(len(text.input_ids))
        finally:
            pool.shutdown(cancel_futures=True)
        return LogitRows.cat(parts)

    def _ask(self, text: Encoded) -> dict[str, Any]:
        ids = text.input_ids
        prompt = ids if self.how.prompt == "ids" else self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        form = {"echo": True, "logprobs": self.k} if self.how.logprobs_api == "echo" else {"prompt_logprobs": self.k}
        exact = {"return_token_ids": True} if self.how.logprobs_api == "prompt_logprobs" else {}
        asked = {"model": self.how.model, "prompt": prompt, "max_tokens": 1, "temperature": 1.0}
        return self.endpoint.post({**asked, **form, **exact, **self.how.extra_body})["choices"][0]

    def _decoded(self, ids: Iterable[int]) -> list[str]:
        return self.tokenizer.batch_decode([[id] for id in ids], clean_up_tokenization_spaces=False)

    def _ids_by_text(self) -> dict[str, int]:
        """The id of each text that only one token has."""
        texts = self._decoded(range(vocabulary_size(self.tokenizer)))
        found: dict[str, int] = {}
        for id, name in enumerate(texts):
            found[name] = -1 if name in found else id
        return {name: id for name, id in found.items() if id >= 0}


def read_prompt_logprobs(choice: Mapping[str, Any], sent: Sequence[int], decoded: Any) -> Sequence[TokenLogprobs]:
    """What vLLM's extension lists at each token of a prompt: {"123": {"logprob": -0.1, "rank": 1}, ...}, null at the first.

    Raises ValueError where the prompt was other tokens than `sent`: their ids come back, and each is listed at its place.
    """
    listed = choice.get("prompt_logprobs")
    if listed is None:
        raise ValueError(
            "the answer has no prompt_logprobs. Use form: echo, or a server with this extension (vllm serve)."
        )
    came = choice.get("prompt_token_ids")
    found = [{int(id): float(entry["logprob"]) for id, entry in (entries or {}).items()} for entries in listed]
    wrong = [n for n, entries in enumerate(found) if n and n < len(sent) and sent[n] not in entries]
    if (came is not None and list(came) != list(sent)) or len(found) != len(sent) or wrong:
        raise ValueError(_mismatch(len(found) if came is None else len(came), len(sent), came or [], sent))
    return found


def read_echo(
    choice: Mapping[str, Any], sent: Sequence[int], decoded: Any, names: Mapping[str, int]
) -> Sequence[TokenLogprobs]:
    """What an echoed prompt lists at each token, by its text; texts that several tokens have are left out.

    Raises ValueError where the prompt was other tokens than `sent`, as far as their texts tell.
    """
    logprobs = choice.get("logprobs") or {}
    if len(logprobs.get("tokens") or []) < len(sent) or not logprobs.get("top_logprobs"):
        raise ValueError(
            f"{len(sent)} tokens were sent, and {len(logprobs.get('tokens') or [])} came back with log-probabilities. The "
            "server must support echo with logprobs for prompts; try form: prompt_logprobs, or another server."
        )
    tokens = logprobs["tokens"][: len(sent)]
    texts = decoded(sent)
    wrong = [
        n for n, (came, id) in enumerate(zip(tokens, sent, strict=True)) if came not in (texts[n], f"{TOKEN_ID}{id}")
    ]
    if wrong:
        raise ValueError(_mismatch(len(tokens), len(sent), tokens[wrong[0] :], texts[wrong[0] :]))
    found: list[dict[int, float]] = [{}]
    for id, own, top in zip(sent[1:], logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=False):
        entries = {_id(name, names): float(value) for name, value in (top or {}).items()}
        found.append({**entries, id: float(own)})
        found[-1].pop(-1, None)
    return found


def _id(name: str, names: Mapping[str, int]) -> int:
    return int(name.removeprefix(TOKEN_ID)) if name.startswith(TOKEN_ID) else names.get(name, -1)


def _mismatch(came: int, sent: int, theirs: Sequence[Any], ours: Sequence[Any]) -> str:
    return (
        f"it answered for other tokens than were sent: {came} for {sent}, {theirs[:3]} where {ours[:3]} stood. The tokenizer "
        "at the source's path must be the server's own, and the server must add nothing to the prompt (prompt: ids helps)."
    )
