"""Why an architecture cannot be used, in words: from the exception in which the chain ended."""

from __future__ import annotations

import re

REASONS: dict[str, str] = {}


def explain(error: Exception) -> str:
    """Return the reason, or the exception as it is with `unexplained` in front."""
    text = " ".join(str(error).split())
    for pattern, reason in REASONS.items():
        if re.search(pattern, f"{type(error).__name__}: {text}"):
            return reason
    import traceback

    last = traceback.extract_tb(error.__traceback__)
    at = [f"{f.filename.split('/')[-1]}:{f.lineno}" for f in last][-6:]
    return f"unexplained: {type(error).__name__}: {text[:400]} {at}"
