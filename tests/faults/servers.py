"""A server that hangs up, answers by halves, slowly, with status 500 or with wrong JSON, from a seeded request on.

`python -m tests.faults.servers [NUMBER] [--from NUMBER] [--log FILE]` prints a line for each try: an extraction either goes
through it or ends with a sentence, and goes on to the same cache when the server answers well again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.faults.kills import Try, keep, sentence
from tests.faults.runner import run
from tests.faults.tiny_run import TinyRun, in_child, results_in, unfinished_in

MISDEEDS = (
    "hang up", "half an answer", "500", "slow", "no JSON", "a list", "an empty object", "null", "other keys", "cut numbers",
    "drip",
)  # fmt: skip
LENGTHS = (1, 2, 1000)
"""Requests that go wrong in a row: with two retries the first two get through."""
SLOW = 1.5
"""Seconds, and the client waits one."""
DROPS = 15
"""In so many pieces an answer drips, each in much less than what the client waits."""


def serve(folder: Path, port: int) -> None:
    """Serve a model, and misbehave as `misdeed.json` beside it says: the kind, from which request on, and how often."""
    from tests.helpers.serving import Server

    server, count = Server(folder / "qwen"), {"seen": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                asked = json.loads((folder / "misdeed.json").read_text())
                count["seen"] = 0 if asked.get("restart") else count["seen"] + 1
                if asked.pop("restart", None):
                    (folder / "misdeed.json").write_text(json.dumps(asked))
                status, answer = server.complete(body)
            kind, start, length = asked["kind"], asked["start"], asked["length"]
            is_bad = start <= count["seen"] < start + length
            self.answer(kind if is_bad else "", status, json.dumps(answer).encode())

        def answer(self, kind: str, status: int, data: bytes) -> None:
            if kind == "hang up":
                return self.connection.shutdown(socket.SHUT_RDWR)
            if kind == "slow":
                time.sleep(SLOW)
            wrong = {"no JSON": b"<html>busy</html>", "a list": b"[]", "an empty object": b"{}", "null": b"null"}
            wrong |= {"other keys": b'{"choices": [{"words": 3}]}', "cut numbers": data[: len(data) // 2]}
            data = wrong.get(kind, data)
            self.send_response(500 if kind == "500" else status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(ConnectionError):  # the client has had enough of waiting
                if kind == "drip":
                    return self.drip(data)
                self.wfile.write(data[: len(data) // 2] if kind == "half an answer" else data)

        def drip(self, data: bytes) -> None:
            size = len(data) // DROPS + 1
            for start in range(0, len(data), size):
                time.sleep(SLOW / DROPS)
                self.wfile.write(data[start : start + size])

        def log_message(self, *_: Any) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def prepare(tiny: TinyRun, port: int) -> dict[str, Any]:
    """Write the configuration, and the tokenizer of the model that is served."""
    from tests.helpers import runs
    from tests.helpers import tiny as models

    objectives = [{"kind": "cross_entropy", "weight": 0.5}, {"kind": "forward_kl", "weight": 0.5}]
    raw = runs.raw(tiny.folder, objectives=objectives, weighting={"kind": "gold_posterior"})
    tokenizer = tiny.folder / "tokenizer"
    models.TOKENIZERS["qwen2"](models.TEXTS).save_pretrained(tokenizer)
    backend = {
        "kind": "openai",
        "url": f"http://127.0.0.1:{port}/v1",
        "model": "big",
        "logprobs_api": "prompt_logprobs",
    }
    backend |= {"concurrency": 1, "timeout": 1, "max_retries": 2, "backoff": 0.01}
    raw["sources"][1] = {"name": "qwen", "path": str(tokenizer), "backend": backend}
    (tiny.folder / tiny.config).write_text(yaml.safe_dump(raw))
    return {}


def extract(tiny: TinyRun, kind: str = "", start: int = 0, length: int = 0) -> dict[str, Any]:
    """Extract from the server; status and words."""
    misdeed = {"kind": kind, "start": start, "length": length, "restart": True}
    (tiny.folder / "misdeed.json").write_text(json.dumps(misdeed))

    def body() -> dict[str, Any]:
        status, printed, said, escaped = run(["extract", str(tiny.folder / tiny.config)])
        return {"status": status, "said": said + printed, "escaped": repr(escaped)}

    return in_child(tiny.folder, body)


def try_one(tiny: TinyRun, number: int, expected: dict[str, str]) -> Try:
    """Extract from a server that misbehaves, then from the same when it does well."""
    rng, began = random.Random(f"servers-{number}"), time.perf_counter()
    kind, start, length = MISDEEDS[number % len(MISDEEDS)], rng.randrange(12), rng.choice(LENGTHS)
    one = Try(number, "server", kind, f"from request {start} on, {length} times")
    shutil.rmtree(tiny.folder / "runs", ignore_errors=True)
    found = extract(tiny, kind, start, length)
    if found.get("status") != 0:
        one.said, one.wrong = sentence(found, one.wrong)
        found = extract(tiny)
    if found.get("status") != 0:
        one.wrong.append(f"does not go on: {found}")
    elif results_in(tiny.run) != expected:
        one.wrong.append("goes on to another cache")
    one.wrong += [f"left: {left}" for left in [unfinished_in(tiny.run)] if left]
    one.seconds = time.perf_counter() - began
    return one


def main(words: Sequence[str]) -> int:
    """Try so many; return how many went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.servers")
    parser.add_argument("number", nargs="?", type=int, default=len(MISDEEDS))
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--log", type=Path, help="Each try is appended here as a line of JSON.")
    given = parser.parse_args(words)
    tiny, wrong = TinyRun(Path(tempfile.mkdtemp(prefix="servers-"))), 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    in_child(tiny.folder, lambda: prepare(tiny, port))
    if (pid := os.fork()) == 0:
        serve(tiny.folder, port)
    try:
        whole = extract(tiny)
        assert whole.get("status") == 0, whole
        expected = results_in(tiny.run)
        for number in range(given.first, given.first + given.number):
            one = try_one(tiny, number, expected)
            wrong += bool(one.wrong)
            print(one, flush=True)
            keep(one, given.log)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    shutil.rmtree(tiny.folder, ignore_errors=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
