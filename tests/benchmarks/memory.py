"""Peak memory of the loss as rows and vocabulary grow: what a chunked head is for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from tests.benchmarks.measure import Figure

CHILD = """
import re, sys, torch
from pathlib import Path
from fusion.core.rows import Positions
from fusion.models.head import Head

def peak():  # of this program alone, where getrusage remembers the process that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

rows, vocabulary, chunk = map(int, sys.argv[1:])
layer = torch.nn.Linear(64, vocabulary, bias=False)
hidden = torch.randn(rows, 64, requires_grad=True)
zeros = torch.zeros(rows, dtype=torch.long)
before = peak()
at = Positions(token=zeros, prefix=zeros, example=zeros)
found, _ = Head(layer, vocabulary, chunk=chunk or None, budget=1 << 40).rows(hidden, at, 10)
(found.logprobs.sum() + found.gold.sum() + found.std.sum()).backward()
print(peak() - before)
"""


def measure() -> Iterable[Figure]:
    """Above what weights and hidden states take; each size in a process of its own. Reads /proc, so Linux only."""
    for vocabulary in (50_000, 150_000):
        for rows in (512, 2048, 8192):
            dense = "" if rows > 2048 else f"dense: {_peak(rows, vocabulary, 0) / 1e6:,.0f} MB"
            peak = _peak(rows, vocabulary, 2**24 // vocabulary)
            logits = rows * vocabulary * 4 / 1e6
            what = f"peak of the loss, {rows:,} rows x {vocabulary:,}, chunks of 2^24 logits"
            yield Figure(what, f"{peak / 1e6:,.0f} MB", "flat", f"logits alone: {logits:,.0f} MB; {dense}".rstrip("; "))


def _peak(rows: int, vocabulary: int, chunk: int) -> int:
    command = [sys.executable, "-c", CHILD, str(rows), str(vocabulary), str(chunk)]
    return 1024 * int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
