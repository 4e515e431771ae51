"""The command line: run the groups of checks one after another, print a table, write JSON."""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fusion.runtime.artifacts import write_json
from fusion.runtime.console import console as fusion_console
from fusion.runtime.console import quiet
from fusion.runtime.distributed import device, free_memory
from gpu_checks.check import Check, CheckContext
from gpu_checks.machine import describe_machine, versions

GROUPS = {
    "models": "gpu_checks.shapes:logits_check",
    "mixed": "gpu_checks.precision:mixed_check",
    "pure": "gpu_checks.precision:pure_check",
    "steps": "gpu_checks.ratios:steps_check",
    "extraction": "gpu_checks.ratios:extraction_check",
    "memory": "gpu_checks.memory:memory_check",
    "quickstart": "gpu_checks.quickstart:quickstart_check",
}
"""The groups of checks in their order: a module and its function. Each is imported when its turn comes, so that one that
cannot be imported stops no other."""
WIDTH = 180
"""Columns of the table where it goes to a file."""
SECONDS_IN_ALL = 480
"""What everything may take on one H100 or H200."""


@dataclass
class CheckReport:
    """The checks so far, written to a file after each, so that what was measured stays if the rest is stopped."""

    file: Path
    tiny: bool
    console: Console
    machine: dict = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def add(self, check: Check) -> None:
        """Keep a check, write the file, and print a line."""
        self.checks.append(check)
        self.write(finished=False)
        mark, style = ("ok", None) if check.ok else ("FAILED", "red")
        bound = f" ({check.bound})" if check.bound else ""
        line = f"{self.seconds:5.0f} s  {mark:6}  {check.name}: {check.error or measured(check)}{bound}"
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def write(self, finished: bool) -> None:
        """Write the file whole; `finished` says whether all checks that were asked for are in it."""
        content = {
            "machine": self.machine,
            "versions": versions(),
            "tiny": self.tiny,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "finished": finished,
            "ok": self.ok,
            "checks": [check.to_json() for check in self.checks],
        }
        write_json(self.file, content)

    def table(self) -> Table:
        """All checks, with what failed in red."""
        table = Table("check", "measured", "bound", "ok", "s", "how", title="GPU check" + " (tiny)" * self.tiny)
        for check in self.checks:
            ok, style = ("yes", None) if check.ok else ("NO", "red")
            how = escape(check.error or check.how)
            table.add_row(check.name, measured(check), check.bound, ok, f"{check.seconds:.1f}", how, style=style)
        return table

    @property
    def ok(self) -> bool:
        """Whether every check so far is within its bounds."""
        return all(check.ok for check in self.checks)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks that are named, or all. Return 0 where all are within their bounds, 1 where not."""
    parser = argparse.ArgumentParser(
        prog="python launch/gpu_check.py", description="Check fusion on this machine's GPU."
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"any of {', '.join(GROUPS)}; all if none is named")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="where everything measured is written"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="the same checks at tiny size, on a CPU too; numbers mean nothing"
    )
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.groups) - GROUPS.keys()):
        parser.error(f"there is no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    if not torch.cuda.is_available() and not given.tiny:
        parser.error(
            f"torch {torch.__version__} finds no GPU (torch.cuda.is_available() is False). Run this on a machine with one, "
            "or add --tiny for the same checks at tiny size on a CPU."
        )
    return 0 if run(given.groups or list(GROUPS), given.out, given.tiny) else 1


def run(groups: Sequence[str], file: Path, tiny: bool) -> bool:
    """Run these groups in a temporary folder; whether every check is within its bounds."""
    quiet()
    console = Console()
    report = CheckReport(file, tiny, console if console.is_terminal else Console(width=WIDTH), describe_machine())
    was_quiet, fusion_console.quiet = fusion_console.quiet, True  # the bars and tables of runs would bury the checks
    try:
        with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
            for group in groups:
                run_group(group, CheckContext(Path(folder), device(), tiny), report)
    finally:
        fusion_console.quiet = was_quiet
    if not tiny and set(groups) == GROUPS.keys():
        report.add(Check("all checks together", report.seconds, "s", at_most=SECONDS_IN_ALL))
    report.write(finished=True)
    report.console.print(
        report.table(), f"{'All is well' if report.ok else 'Something failed'}; everything is in {file}."
    )
    return report.ok


def run_group(name: str, context: CheckContext, report: CheckReport) -> None:
    """Run one group. Where it raises, what it yielded before stays, and the error becomes a check that failed."""
    module, function = GROUPS[name].split(":")
    began = time.perf_counter()
    try:
        for check in getattr(importlib.import_module(module), function)(context):
            report.add(replace(check, seconds=round(time.perf_counter() - began, 2)))
            began = time.perf_counter()
    except Exception as error:
        seconds, says = round(time.perf_counter() - began, 2), f"{type(error).__name__}: {error}"
        report.add(Check(f"{name}: to its end", None, error=says, traceback=traceback.format_exc(), seconds=seconds))
    free_memory()


def measured(check: Check) -> str:
    """Return the measured number and its unit as text."""
    return "-" if check.value is None else f"{check.value:,.4g} {check.unit}".strip()
