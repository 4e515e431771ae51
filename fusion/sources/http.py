"""Questions in JSON to a server, asked again while it is busy."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

RETRIED_STATUS = {408, 429}
MAX_WAIT = 60.0  # seconds between two attempts


@dataclass(frozen=True)
class Endpoint:
    """One address. The key goes into the header of a request and nowhere else."""

    url: str
    key: str | None = field(repr=False)
    timeout: float
    retries: int
    backoff: float

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer. Raises ValueError where the server refuses, and when it has failed once more than `retries` times."""
        wait, why = self.backoff, ""
        for left in range(self.retries, -1, -1):
            try:
                return self._once(body)
            except urllib.error.HTTPError as error:
                said = self._without_key(error.read(2000).decode(errors="replace").strip())
                if error.code not in RETRIED_STATUS and error.code < 500:
                    raise ValueError(f"{self.url} refused the request with status {error.code}: {said}") from None
                why, pause = f"status {error.code}: {said}", _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                why, pause = f"{type(error).__name__}: {error}", None
            if left:
                time.sleep(min(MAX_WAIT, wait if pause is None else pause))
                wait *= 2
        raise ValueError(
            f"{self.url} failed {self.retries + 1} times, the last time with {why}. What is done is kept: run the "
            "command again when the server answers, or raise backend.timeout or backend.retries."
        )

    def _once(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            return json.load(answer)

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def _seconds(said: str | None) -> float | None:
    try:
        return None if said is None else float(said)
    except ValueError:
        return None  # a date; our own pace will do
