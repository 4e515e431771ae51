"""Measure and print; with --write also into the page that quotes the figures."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fusion.runtime.console import quiet
from tests.benchmarks.measure import Figure, put_on_page

NAMES = (
    "steps",
    "losses",
    "memory",
    "packing",
    "graphs",
    "extraction",
    "encoding",
    "starting",
    "caching",
    "aligning",
    "brackets",
    "evaluation",
)


def main() -> None:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all if none is named")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a Markdown page to put the tables into")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    torch.set_num_threads(1)
    quiet()
    console = Console()
    for name in given.names or NAMES:
        module = importlib.import_module(f"tests.benchmarks.{name}")
        with console.status(f"{name} ..."):
            figures = list(module.measure())
        console.print(_table(module.__doc__ or name, figures))
        if given.write:
            put_on_page(given.write, name, _markdown(module.__doc__ or name, figures))


def _table(title: str, figures: Sequence[Figure]) -> Table:
    table = Table("what", "measured", "wanted", "how", title=title.strip().splitlines()[0])
    for figure in figures:
        table.add_row(figure.what, figure.value, figure.target, figure.how)
    return table


def _markdown(title: str, figures: Sequence[Figure]) -> str:
    lines = [
        f"{title.strip().splitlines()[0]}",
        "",
        "| what | measured | wanted | how |",
        "| --- | ---: | ---: | --- |",
    ]
    lines += [f"| {figure.what} | {figure.value} | {figure.target} | {figure.how} |" for figure in figures]
    return "\n".join([*lines, "", f"{_machine()}.", ""])


def _machine() -> str:
    return f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, one thread, float32"


if __name__ == "__main__":
    main()
