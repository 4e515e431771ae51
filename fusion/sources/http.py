"""JSON requests to a server, with retries and exponential backoff."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

RETRIED_STATUS = {408, 429}  # besides 500 and above
REFUSAL = "validation error"  # llama-cpp-python refuses a request with status 500, which would be sent again
MAX_WAIT = 60.0  # seconds between two attempts


@dataclass(frozen=True)
class Endpoint:
    """URL and retry policy of a server. The key goes into the Authorization header and nowhere else, messages included."""

    url: str
    key: str | None = field(repr=False)
    timeout: float
    max_retries: int
    backoff: float

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the response to a JSON body. Raises ValueError where the server refuses, or fails `max_retries` + 1 times."""
        wait, reason = self.backoff, ""
        for retries_left in range(self.max_retries, -1, -1):
            try:
                return self._once(body)
            except urllib.error.HTTPError as error:
                message = self._without_key(error.read(600).decode(errors="replace").strip())
                if (error.code not in RETRIED_STATUS and error.code < 500) or REFUSAL in message:
                    raise ValueError(f"{self.url} refused the request with status {error.code}: {message}") from None
                reason, pause = f"status {error.code}: {message}", _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
                reason, pause = f"{type(error).__name__}: {error}", None
            if retries_left:
                time.sleep(min(MAX_WAIT, wait if pause is None else pause))
                wait *= 2
        raise ValueError(
            f"{self.url} failed {self.max_retries + 1} times, the last time with {reason}. What is done is kept: run the "
            "command again when the server answers, or raise backend.timeout or backend.max_retries."
        )

    def _once(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            return json.load(response)

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else float(header)
    except ValueError:
        return None  # a date: our own backoff will do
