"""What a group of checks is given, and what it yields."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Number = float | int


@dataclass(frozen=True)
class CheckContext:
    """Where and how large the checks are."""

    folder: Path
    """An empty folder for models and runs; some 10 GB at full size."""
    device: str
    """`cuda`, or `cpu` for tiny sizes."""
    tiny: bool = False
    """Whether sizes are tiny: the same code, in seconds on a CPU. Its numbers mean nothing."""

    def bound(self, value: float) -> float | None:
        """Return a bound that only the full size is held to: None where sizes are tiny."""
        return None if self.tiny else value


@dataclass(frozen=True)
class Check:
    """One measured number, and the bounds that it is held to, if any."""

    name: str
    value: Number | None
    """None where it could not be measured; `error` then says why."""
    unit: str = ""
    at_least: Number | None = None
    at_most: Number | None = None
    how: str = ""
    """Sizes, counts, or what the number is made of."""
    error: str | None = None
    traceback: str | None = None
    seconds: float = 0.0
    """From the end of the check before it in the same group."""

    @property
    def ok(self) -> bool:
        """Whether it was measured and is within its bounds. Infinity and NaN never are."""
        if self.error is not None or self.value is None or not math.isfinite(self.value):
            return False
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    @property
    def bound(self) -> str:
        """The bounds as text, such as `≤ 0.02`; empty where there are none."""
        sides = (("≥", self.at_least), ("≤", self.at_most))
        return ", ".join(f"{sign} {limit:,.4g}" for sign, limit in sides if limit is not None)

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds of it; a value that JSON cannot hold becomes text."""
        value = self.value if self.value is None or math.isfinite(self.value) else str(self.value)
        return asdict(self) | {"value": value, "ok": self.ok}
