"""JSON requests to a server, with retries and exponential backoff. A key goes to the server that was named and nowhere else."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from fusion.core.secrets import hide, is_header_value, spellings

RETRIED_STATUS = {408, 429}  # besides 500 and above
REFUSAL = "validation error"  # llama-cpp-python refuses a request with status 500, which would be sent again
MAX_WAIT = 60.0  # seconds between two attempts
LONG_KEY = 12
"""Characters of a key from which on no answer holds it by chance; shorter ones, such as EMPTY, are no secrets."""


@dataclass(frozen=True)
class Endpoint:
    """URL and retry policy of a server. The key goes into the Authorization header and nowhere else, messages included."""

    url: str
    key: str | None = field(repr=False)
    timeout: float
    """Seconds to wait for a connection, and then for the whole answer."""
    max_retries: int
    backoff: float

    def __post_init__(self):
        if self.key is not None and not is_header_value(self.key):  # http.client would show it
            raise ValueError(
                f"The key for {hide(self.url)} holds spaces, line breaks or other characters that no key has."
            )

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the response to a JSON body. Raises ValueError where the server refuses, or fails `max_retries` + 1 times."""
        wait, reason = self.backoff, ""
        for retries_left in range(self.max_retries, -1, -1):
            try:
                return self._once(body)
            except urllib.error.HTTPError as error:
                message = self._without_key(_beginning(error))
                if (error.code not in RETRIED_STATUS and error.code < 500) or REFUSAL in message:
                    raise ValueError(f"{self.url} refused the request with status {error.code}: {message}") from None
                reason, pause = f"status {error.code}: {message}", _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
                reason, pause = self._without_key(f"{type(error).__name__}: {error}"), None
            if retries_left:
                time.sleep(min(MAX_WAIT, wait if pause is None else pause))
                wait *= 2
        raise ValueError(
            f"{self.url} failed {self.max_retries + 1} times, the last time with {reason}. What is done is kept: run the "
            "command again when the server answers, or raise backend.timeout or backend.max_retries."
        )

    def _once(self, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self.url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if self.key:
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        opener = urllib.request.build_opener(_RefuseRedirects, _Http, _Https)
        with opener.open(request, timeout=self.timeout) as response:
            answer = response.read().decode()
        self._refuse_key_in(answer)
        return json.loads(answer)

    def _refuse_key_in(self, answer: str) -> None:
        if self.key and len(self.key) >= LONG_KEY and any(form in answer for form in spellings(self.key)):
            raise ValueError(
                f"{self.url}: its answer repeats the key that was sent, which would then be kept among the answers. Find "
                "out what stands between you and the server, and give it another key."
            )

    def _without_key(self, text: str) -> str:
        return hide(text, self.key)


class _RefuseRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the key on, to any host, and a request without its body."""

    @override
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        here, there = _address(req.full_url), _address(newurl)
        unencrypted = ", without encryption" if here.startswith("https:") and there.startswith("http:") else ""
        raise ValueError(
            f"{req.full_url} sends requests on to {there}{unencrypted} (status {code}), and none is followed, for your texts "
            f"and the key are meant for {here} alone. If that is where the server is, set backend.url to its address there."
        )


class _TimedReader(io.RawIOBase):
    """Reads from a socket until its timeout is over, counted from now on; the socket itself would wait anew for each byte."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket):
        self._raw, self._connection = raw, connection
        self._end = None if (timeout := connection.gettimeout()) is None else time.monotonic() + timeout

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any, /) -> int | None:
        if self._end is not None:
            if (seconds := self._end - time.monotonic()) <= 0:
                raise TimeoutError("timed out before the answer was whole")
            self._connection.settimeout(seconds)
        return self._raw.readinto(buffer)

    @override
    def close(self) -> None:
        self._raw.close()  # which holds the socket
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """An answer whose head and body together must come within the timeout of the connection."""

    def __init__(self, sock: socket.socket, *arguments: Any, **more: Any):
        super().__init__(sock, *arguments, **more)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock))


class _TimedHandler(urllib.request.AbstractHTTPHandler):
    @override
    def do_open(self, http_class: Any, req: urllib.request.Request, **http_conn_args: Any) -> http.client.HTTPResponse:
        def connect(host: str, **more: Any) -> http.client.HTTPConnection:
            connection = http_class(host, **more)
            connection.response_class = _TimedResponse
            return connection

        return super().do_open(connect, req, **http_conn_args)


class _Http(_TimedHandler, urllib.request.HTTPHandler):
    pass


class _Https(_TimedHandler, urllib.request.HTTPSHandler):
    pass


def _beginning(error: urllib.error.HTTPError) -> str:
    """What a server says of an error, as far as it says it."""
    try:
        return error.read(600).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return "(and the rest of the answer did not come)"


def _address(url: str) -> str:
    """Scheme, host and port of a URL, and nothing that may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else float(header)
    except ValueError:
        return None  # a date: our own backoff will do
