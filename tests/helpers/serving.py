"""A tiny real model served as others serve theirs: over HTTP as vLLM's OpenAI server does, and as the module `vllm`."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fusion.tokenizers import vocabulary_bytes

OPENAI_FIELDS = {
    "model", "prompt", "echo", "logprobs", "max_tokens", "temperature", "top_p", "seed", "n", "stop", "presence_penalty",
    "frequency_penalty", "generation_config", "stream",
}  # fmt: skip


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
    """Whether it puts BOS, or the token 1, before every prompt."""
    penalises: bool = False
    """Whether it writes otherwise (backwards) where no request turns its repetition penalty off."""
    kind: Literal["vllm", "llama_cpp_python", "transformers_serve"] = "vllm"
    """Whose habits it has; `tests/sources/recorded` holds answers of the real ones."""
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
        if refusal := self._refused(body):
            return refusal
        ids = body["prompt"]
        ids = self.tokenizer(ids, add_special_tokens=False)["input_ids"] if isinstance(ids, str) else ids
        bos = self.tokenizer.bos_token_id
        ids = [1 if bos is None else bos, *ids] if self.adds_bos else ids
        if self.kind == "transformers_serve" or not (body.get("logprobs") or body.get("prompt_logprobs")):
            choice = self._written(ids, body)
        else:
            choice = {"index": 0, "text": "", "finish_reason": "length"} | self._listed(ids, body)
        return 200, {"object": "text_completion", "choices": [choice], "usage": {"prompt_tokens": len(ids)}}

    def _refused(self, body):
        k = body.get("prompt_logprobs") or body.get("logprobs") or 0
        if self.kind == "llama_cpp_python" and not isinstance(body["prompt"], str):
            return 500, {"error": {"message": "7 validation errors: Input should be a valid string"}}
        if self.kind == "transformers_serve" and not isinstance(body["prompt"], str):
            return 400, {"detail": "prompt must be a string."}
        if self.kind == "transformers_serve" and (unexpected := body.keys() - OPENAI_FIELDS):
            return 422, {"detail": f"Unexpected fields in the request: {unexpected}"}
        if self.kind == "vllm" and k > self.limit:
            return 400, {"error": {"message": f"Requested {k} logprobs, at most {self.limit} are allowed."}}
        return None

    def _listed(self, ids, body):
        if self.kind == "llama_cpp_python":
            return {"logprobs": self._echo_llama_cpp(ids, body["logprobs"])} if body.get("echo") else {}
        listed = prompt_logprobs(self.model, ids, body.get("prompt_logprobs") or body["logprobs"])
        if "prompt_logprobs" in body:
            found = {
                "prompt_logprobs": [entries and {str(i): vars(e) for i, e in entries.items()} for entries in listed]
            }
            return found | ({"prompt_token_ids": ids} if body.get("return_token_ids") and self.as_token_ids else {})
        return {"logprobs": self._echo(ids, listed, body.get("return_tokens_as_token_ids", False))}

    def _written(self, ids, body):
        # transformers serve takes the frequency penalty for a repetition penalty less one
        neutral = {"vllm": "repetition_penalty", "llama_cpp_python": "repeat_penalty"}.get(
            self.kind, "frequency_penalty"
        )
        penalised = self.penalises and neutral not in body
        stop = [self.tokenizer.convert_tokens_to_ids(text) for text in body.get("stop", [])]
        stop += body.get("stop_token_ids", []) if self.kind == "vllm" else []
        rest = (body["max_tokens"], stop, body["temperature"], body.get("seed", 0))
        [(text, reason)] = continued(self.model, self.tokenizer, ids, 1, *rest)
        return {"index": 0, "text": text[::-1] if penalised else text, "finish_reason": reason}

    def _echo(self, ids, listed, as_ids):
        """As vLLM: a part of a character has no text, and what completes one has all of it."""
        ids = [*ids, 7]  # one token must be generated, and it is listed as well
        table, before, pending = vocabulary_bytes(self.tokenizer), [], b""
        for id in ids:
            before.append(pending)
            pending = b"" if self._name(pending + (table[id] or b"")) else pending + (table[id] or b"")

        def name(id, at):
            if as_ids:
                return f"token_id:{id}"
            return self.tokenizer.decode([id]) if table[id] is None else self._name(before[at] + table[id])

        listed = [*listed, {7: Logprob(-1.0)}]
        top = []
        for at, entries in enumerate(listed):
            names = {}
            for id, entry in (entries or {}).items():
                names.setdefault(name(id, at), entry.logprob)
            top.append(names or None)
        return {
            "tokens": [name(id, at) for at, id in enumerate(ids)],
            "token_logprobs": [entries and entries[id].logprob for id, entries in zip(ids, listed, strict=True)],
            "top_logprobs": top,
        }

    def _name(self, raw):
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return ""

    @torch.no_grad()
    def _echo_llama_cpp(self, ids, k):
        """As llama-cpp-python: an item holds what comes behind its token, unless BOS, which it leaves out, comes first."""
        table, bos = vocabulary_bytes(self.tokenizer), self.tokenizer.bos_token_id
        logprobs = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        tokens, own, top = [], [], []
        for id, row in zip([*ids[ids[0] == bos :], 7], logprobs, strict=False):
            if id == bos:
                continue
            names = {}
            for value, other in zip(*(each.tolist() for each in row.topk(k)), strict=True):
                names[(table[other] or b"").decode(errors="ignore")] = value
            tokens.append((table[id] or b"").decode(errors="ignore"))
            own.append(row[id].item())
            top.append({**names, tokens[-1]: own[-1]})
        own[0] = top[0] = None
        return {"tokens": tokens, "token_logprobs": own, "top_logprobs": top}


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
    thread = threading.Thread(
        target=http.serve_forever, args=(0.01,), daemon=True
    )  # seconds until it sees that it is to end
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
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
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
