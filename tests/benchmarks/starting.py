"""What a command takes before it does anything, against `import torch`: CPU seconds of whole processes."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable

from tests.benchmarks.measure import Figure, paired

COMMANDS = {
    "fusion plan quickstart": ["-m", "fusion", "plan", "quickstart"],
    "fusion schema": ["-m", "fusion", "schema"],
    "fusion --help": ["-m", "fusion", "--help"],
    "import fusion.pipeline": ["-c", "import fusion.pipeline"],
}


def measure() -> Iterable[Figure]:
    """Each command and `import torch` in turn, both with byte code."""
    wanted = {"fusion plan quickstart": "≤ 3", "fusion --help": "< 1"}
    with tempfile.TemporaryDirectory() as folder:
        yardstick = _process(["-c", "import torch"], folder)
        for name, arguments in COMMANDS.items():
            ratio = paired(_process(arguments, folder), yardstick, runs=5, clock=_seconds_of_children)
            yield Figure(f"{name} / import torch", str(ratio), wanted.get(name, ""), f"{ratio.a:.2f} s")


def _process(arguments: list[str], folder: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
