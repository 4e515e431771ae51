"""A tiny real model served as others serve theirs: over HTTP as vLLM's OpenAI server does, and as the module `vllm`."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class Logprob:
    """As in vllm.logprobs."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@torch.no_grad()
def prompt_logprobs(model, ids, k):
    """vLLM's list: None for the first token, then the token itself and the k most likely, of the whole padded head."""
    logprobs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    listed: list[dict[int, Logprob] | None] = [None]
    for at, token in enumerate(ids[1:]):
        row = logprobs[at]
        entries = {token: Logprob(row[token].item(), int((row > row[token]).sum()) + 1)}
        values, best = row.topk(k)
        entries |= {id: Logprob(v, n + 1) for n, (id, v) in enumerate(zip(best.tolist(), values.tolist(), strict=True))}
        listed.append(entries)
    return listed


@torch.no_grad()
def continued(model, tokenizer, ids, n, most, stop, temperature, seed):
    """Texts and why they ended, token by token; nothing of how we generate is used here."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n):
        all_ids, reason = list(ids), "length"
        for _ in range(most):
            logits = model(torch.tensor([all_ids])).logits[0, -1].float()
            drawn = torch.multinomial((logits / (temperature or 1)).softmax(-1), 1, generator=generator)
            token = int(drawn if temperature else logits.argmax())
            if token in stop:
                reason = "stop"
                break
            all_ids.append(token)
        found.append((tokenizer.decode(all_ids[len(ids) :], skip_special_tokens=True), reason))
    return found


@dataclass
class Server:
    """What the server is told to do, and what it saw."""

    folder: Any
    fail: list[int] = field(default_factory=list)
    """Status codes of the next answers, before it answers well."""
    key: str | None = None
    limit: int = 100
    """Largest number of log-probabilities."""
    adds_bos: bool = False
    takes_ids: bool = True
    as_token_ids: bool = True
    """Whether it knows return_token_ids."""
    says: dict[str, str] = field(default_factory=dict)
    """Headers of failures."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    busy: int = 0
    most: int = 0
    together: int = 1
    """Nothing is answered before so many requests were on the way at once, or ten seconds are over."""

    def __post_init__(self):
        self.model = AutoModelForCausalLM.from_pretrained(self.folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.lock, self.counting = threading.Lock(), threading.Condition()

    def complete(self, body):
        """Status and answer to a request."""
        if "n" in body:
            return 200, {"object": "text_completion", "choices": self._written(body)}
        k = body.get("prompt_logprobs") or body.get("logprobs")
        if k > self.limit:
            return 400, {"error": {"message": f"Requested {k} logprobs, at most {self.limit} are allowed."}}
        ids = body["prompt"]
        if isinstance(ids, str):
            ids = self.tokenizer(ids, add_special_tokens=False)["input_ids"]
        elif not self.takes_ids:
            return 400, {"error": {"message": "prompt must be a string"}}
        ids = [1, *ids] if self.adds_bos else ids
        listed = prompt_logprobs(self.model, ids, k)
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "length"}
        if "prompt_logprobs" in body:
            choice["prompt_logprobs"] = [
                entries and {str(i): vars(e) for i, e in entries.items()} for entries in listed
            ]
            if body.get("return_token_ids") and self.as_token_ids:
                choice["prompt_token_ids"] = ids
        elif body.get("echo"):
            choice["logprobs"] = self._echo(ids, listed, body.get("return_tokens_as_token_ids", False))
        return 200, {"object": "text_completion", "choices": [choice]}

    def _written(self, body):
        ids = body["prompt"]
        ids = self.tokenizer(ids, add_special_tokens=False)["input_ids"] if isinstance(ids, str) else ids
        stop = [self.tokenizer.convert_tokens_to_ids(text) for text in body.get("stop", [])]
        return [
            {"index": n, "text": text, "finish_reason": reason}
            for n, (text, reason) in enumerate(
                continued(
                    self.model,
                    self.tokenizer,
                    ids,
                    body["n"],
                    body["max_tokens"],
                    stop,
                    body["temperature"],
                    body["seed"],
                )
            )
        ]

    def _echo(self, ids, listed, as_ids):
        def name(id):
            return f"token_id:{id}" if as_ids else self.tokenizer.decode([id])

        generated = 7  # one token must be generated, and it is listed as well
        own = [None, *(entries[id].logprob for id, entries in zip(ids[1:], listed[1:], strict=True))]
        top = [entries and {name(id): entry.logprob for id, entry in entries.items()} for entries in listed]
        return {
            "tokens": [name(id) for id in [*ids, generated]],
            "token_logprobs": [*own, -1.0],
            "top_logprobs": [*top, {name(generated): -1.0}],
            "text_offset": [],
        }


@contextmanager
def serve(server: Server):
    """The address of a running server."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            with server.counting:
                server.busy += 1
                server.most = max(server.most, server.busy)
                server.counting.notify_all()
                server.counting.wait_for(lambda: server.most >= server.together, timeout=10)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                status, answer = 401, {"error": {"message": f"Incorrect key {self.headers.get('Authorization')}"}}
            elif server.fail:
                status, answer = server.fail.pop(0), {"error": {"message": "busy"}}
            else:
                with server.lock:
                    status, answer = server.complete(body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in (server.says if status != 200 else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with server.counting:  # before the answer is out, for it may be followed by the next question at once
                server.busy -= 1
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        http.shutdown()
        http.server_close()


@dataclass
class FlatLogprobs:
    """As in vllm.logprobs: entries of all positions in a row, an empty stretch for the first."""

    start_indices: list[int] = field(default_factory=list)
    end_indices: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ranks: list[int | None] = field(default_factory=list)
    decoded_tokens: list[str | None] = field(default_factory=list)

    def append(self, entries):
        self.start_indices.append(len(self.token_ids))
        for id, entry in (entries or {}).items():
            self.token_ids.append(id)
            self.logprobs.append(entry.logprob)
            self.ranks.append(entry.rank)
            self.decoded_tokens.append(None)
        self.end_indices.append(len(self.token_ids))


@dataclass
class SamplingParams:
    """The arguments of vllm.SamplingParams that matter here; any other name is an error, as it is there."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    prompt_logprobs: int | None = None
    flat_logprobs: bool = False
    detokenize: bool = True

    def __post_init__(self):
        assert self.max_tokens is None or self.max_tokens >= 1


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    prompt_logprobs: Any
    outputs: list[CompletionOutput] = field(default_factory=list)


@dataclass
class CompletionOutput:
    text: str
    finish_reason: str


class LLM:
    """vllm.LLM over the tiny model, strict about names and limits."""

    made: list[LLM] = []  # noqa: RUF012

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        max_logprobs: int = 20,
        logprobs_mode: str = "raw_logprobs",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int = 256,
        quantization: str | None = None,
    ):
        self.arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.max_logprobs, self.max_model_len, self.changes = max_logprobs, max_model_len, lambda ids: ids
        LLM.made.append(self)

    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        if isinstance(sampling_params, list):
            return [self._written(*each) for each in zip(prompts, sampling_params, strict=True)]
        outputs = []
        for prompt in prompts:
            ids = self.changes(prompt["prompt_token_ids"])
            if sampling_params.prompt_logprobs > self.max_logprobs:
                raise ValueError(f"Requested prompt logprobs of {sampling_params.prompt_logprobs}, over max_logprobs")
            if len(ids) + sampling_params.max_tokens > self.max_model_len:
                raise ValueError("The decoder prompt is longer than the maximum model length")
            listed: Any = prompt_logprobs(self.model, ids, sampling_params.prompt_logprobs)
            if sampling_params.flat_logprobs:
                flat = FlatLogprobs()
                for entries in listed:
                    flat.append(entries)
                listed = flat
            outputs.append(RequestOutput(ids, listed))
        return outputs

    def _written(self, prompt, how):
        ids = prompt["prompt_token_ids"]
        stop = how.stop_token_ids or []
        found = continued(self.model, self.tokenizer, ids, how.n, how.max_tokens, stop, how.temperature, how.seed)
        return RequestOutput(ids, None, [CompletionOutput(*each) for each in found])


def vllm_module():
    """What `import vllm` finds."""
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    LLM.made.clear()
    return module
